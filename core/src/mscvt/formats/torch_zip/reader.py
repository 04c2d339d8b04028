"""Files that `torch.save` wrote, read without torch, and without executing anything in them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mscvt.errors import MscvtError
from mscvt.formats.torch_zip.archive import (
    PICKLE,
    Directories,
    Directory,
    Record,
    data_start,
    directory_bytes,
    opened,
    read_at,
)
from mscvt.formats.torch_zip.known import STORAGES
from mscvt.formats.torch_zip.standins import Global, Storage, StoredTensor, described
from mscvt.formats.torch_zip.unpickler import WORK, unpickle
from mscvt.records import dataclass
from mscvt.tensors.info import ITEM_SIZES, TORCH_NAMES, TensorInfo

_PICKLE_LIMIT = 1 << 26
"""Bytes; the pickle describes tensors and does not hold them. Those of the largest shards are some megabytes."""

_WIDTHS = {kind: ITEM_SIZES[dtype] for kind, dtype in STORAGES.items()}
"""Class of a storage -> bytes of its elements."""


@dataclass(frozen=True, slots=True)
class Headers:
    """All of a file that says what is in it and where: everything but the bytes of its tensors."""

    path: Path
    directory: Directory
    pickled: bytes

    @property
    def content(self) -> tuple[Directory, bytes]:
        """Equal where pickle, names, sizes and places of all records are equal, as far as directories are known."""
        return self.directory, self.pickled


def read_headers(path: Path, start: int = 0, length: int | None = None, known: Directories | None = None) -> Headers:
    """Read a file's directory and pickle.

    Args:
        path: The file.
        start: Where the zip file begins in it, in bytes.
        length: Bytes of the zip file; None: all that follow.
        known: Directories that were read before, to which this one is added.

    Raises:
        MscvtError: Where it is no readable file of `torch.save`.
    """
    with opened(path) as descriptor:
        length = os.fstat(descriptor).st_size - start if length is None else length
        offset, count, raw = directory_bytes(descriptor, start, length)
        directory = (known or Directories()).parse(raw, count, offset, start)
        pickled = _content(descriptor, directory.records[PICKLE[1:]], _PICKLE_LIMIT)
        order = directory.records.get("byteorder")
        if order is not None and _content(descriptor, order, 16) != b"little":
            raise MscvtError("was not saved by a little-endian machine", hint="Save it anew on one.")
    return Headers(path, directory, pickled)


def interpret(headers: Headers, work: int = WORK) -> Any:
    """Everything that a file says, with stand-ins for tensors and for all that is not plain.

    Raises:
        MscvtError: Where it contradicts itself, or would do harm.
    """
    storages: dict[tuple[str, str], Storage] = {}
    records = headers.directory.records

    with opened(headers.path) as descriptor:

        def storage_of(pid: Any) -> Storage:
            if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
                raise MscvtError("its pickle refers to something that is no storage")
            _, named, key, _, numel = pid
            if not isinstance(named, Global) or not isinstance(key, str) or type(numel) is not int or numel < 0:
                raise MscvtError("its pickle refers to something that is no storage")
            kind = named.name
            found = storages.get((key, kind))
            if found is None:
                record = records.get(f"data/{key}")
                if record is None:
                    raise MscvtError(f"has no record {('data/' + key)[:100]!a}, which its pickle refers to")
                found = storages[key, kind] = Storage(record, data_start(descriptor, record), kind)
            width = _WIDTHS.get(kind)
            if width is not None and found.record.size != numel * width:
                raise MscvtError(
                    f"its record {found.record.name[:100]!a} has {found.record.size:,} bytes, "
                    f"the pickle says {numel:,} elements of {width} bytes"
                )
            return found

        return unpickle(headers.pickled, storage_of, work)


def _content(descriptor: int, record: Record, limit: int) -> bytes:
    """The bytes of a short record."""
    if record.size > limit:
        raise MscvtError(f"its record {record.name[:100]!a} has {record.size:,} bytes, more than any checkpoint's")
    return read_at(descriptor, data_start(descriptor, record), record.size)


def load(path: Path, start: int = 0, length: int | None = None) -> Any:
    """Everything in a file of `torch.save`: plain values, `StoredTensor` and, for all other objects, `Recorded`.

    Args:
        path: The file.
        start: Where the zip file begins in it, in bytes.
        length: Bytes of the zip file; None: all that follow.

    Raises:
        MscvtError: Where the file can't be read, contradicts itself, or would do harm.
    """
    return interpret(read_headers(path, start, length))


def tensors_in(path: Path, number: int, state: Any, where: str) -> Iterator[tuple[str, TensorInfo]]:
    """Yield name and place of every tensor of a state dict that `load` gave.

    Args:
        path: The file, for errors.
        number: The file's number in its source's list.
        state: The state dict.
        where: What it is in the file, for errors.

    Raises:
        MscvtError: Where it is no dict of tensors, or a tensor is not contiguous.
    """
    if not isinstance(state, dict):
        raise MscvtError(f"{path}: {where} is {described(state)}, expected a dict of tensors")
    for name, value in state.items():
        if not isinstance(name, str) or not name.isprintable():
            shown = ascii(name[:100]) if isinstance(name, str) else described(name)
            raise MscvtError(f"{path}: {where} has a key that is no name: {shown}")
        if isinstance(value, StoredTensor):
            if not value.is_contiguous:
                raise MscvtError(
                    f"{path}: tensor {name[:200]!r} is a view with strides {value.strides}",
                    hint="Save it again with .contiguous(), or as safetensors.",
                )
            yield name, TensorInfo(value.dtype, value.shape, number, value.offset)
        elif not name.endswith("_extra_state"):
            raise MscvtError(
                f"{path}: {name[:200]!r} in {where} is {described(value)}, expected a tensor of dtype "
                f"{', '.join(TORCH_NAMES.values())}"
            )


def check_places(path: Path, storages: Iterable[Storage]) -> None:
    """Compare storages with a file whose headers were equal to those of the file that they are from.

    Raises:
        MscvtError: Where the file's records don't lie where those of the other did.
    """
    with opened(path) as descriptor:
        for storage in storages:
            if data_start(descriptor, storage.record) != storage.start:
                raise MscvtError(f"the header of its record {storage.record.name[:100]!a} contradicts the directory")
