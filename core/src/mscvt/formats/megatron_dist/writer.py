"""Allocating the files of a `torch_dist` checkpoint, whose items are filled in place, and what makes it whole.

What lies around the bytes of a tensor depends on its dtype and shape alone, so that it is made once for each of them.
Items begin at multiples of 64 bytes; `.metadata` says where.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mscvt.errors import MscvtError
from mscvt.formats.megatron_dist.metadata import METADATA, Place
from mscvt.formats.megatron_dist.metadata_written import MetadataPickle
from mscvt.formats.torch_zip.archive import opened
from mscvt.formats.torch_zip.pickler import EmptyTensor, pickled
from mscvt.formats.torch_zip.skeleton import (
    ALIGNMENT,
    Skeleton,
    build_skeleton,
    is_laid_out,
    write_checksums,
    write_pieces,
    write_skeleton,
)
from mscvt.plan.contents import Name, OutputFile
from mscvt.tensors.slots import Slot

VERSIONS = "metadata.json"
COMMON = "common.pt"
OBJECTS = "objects.distcp"
"""The file of the one object that all others are."""
SAYING = (METADATA, VERSIONS, COMMON, OBJECTS)
"""The files that are written when all tensors are."""
_SAID = {"sharded_backend": "torch_dist", "sharded_backend_version": 1, "common_backend": "torch"}


_GAP, _AT_ONCE = 1 << 12, 1 << 20
"""Bytes of zeros that cost less to write than to leave out; bytes that are written at once."""


class _Item(NamedTuple):
    """A tensor's item in its file."""

    offset: int
    """Bytes from the file's start."""
    skeleton: Skeleton


class DistAllocator:
    """Makes the files of one checkpoint."""

    def __init__(self, slot_of: Callable[[Name], Slot]) -> None:
        """Prepare to make files; `slot_of` says where a tensor of the plan lies."""
        self._slot_of = slot_of
        self._skeletons: dict[tuple[str, tuple[int, ...], int], Skeleton] = {}

    def allocate(self, path: Path, file: OutputFile) -> dict[Name, int]:
        """Write a file without the bytes of its tensors; the space for them is left empty.

        Returns:
            The offset of each tensor from the file's start, in bytes.

        Raises:
            OSError: Where the disk is full or broken.
        """
        items = dict(self._items(file))
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            os.ftruncate(descriptor, _length(items))
            pieces = ((item.offset + at, data) for item in items.values() for at, data in item.skeleton.pieces)
            write_pieces(descriptor, _joined(pieces))
        finally:
            os.close(descriptor)
        return {name: item.offset + item.skeleton.starts[0] for name, item in items.items()}

    def offsets(self, path: Path, file: OutputFile) -> dict[Name, int]:
        """Where the tensors of a file are that was allocated before.

        Raises:
            MscvtError: Where it is not as it was allocated, but for tensors and checksums.
        """
        items = dict(self._items(file))
        with opened(path) as descriptor:
            if os.fstat(descriptor).st_size != _length(items):
                raise MscvtError("has not the size that it was made with")
            if not all(is_laid_out(descriptor, item.skeleton, item.offset) for item in items.values()):
                raise MscvtError("is not what was made here")
        return {name: item.offset + item.skeleton.starts[0] for name, item in items.items()}

    def seal(self, path: Path, file: OutputFile, checksums: Mapping[Name, int]) -> None:
        """Note the checksums of a file's tensors. The caller syncs the file.

        Raises:
            OSError: Where the disk is full or broken.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            for name, item in self._items(file):
                write_checksums(descriptor, item.skeleton, [checksums[name]], item.offset)
        finally:
            os.close(descriptor)

    def _items(self, file: OutputFile) -> Iterator[tuple[Name, _Item]]:
        """The items of a file in its order."""
        at = 0
        for name, (dtype, shape) in file.tensors.items():
            skeleton = self._skeleton(dtype, shape, len(self._slot_of(name).indices))
            yield name, _Item(at, skeleton)
            at += -(-skeleton.length // ALIGNMENT) * ALIGNMENT

    def _skeleton(self, dtype: str, shape: tuple[int, ...], leading: int) -> Skeleton:
        """All of an item that lies around a tensor's bytes; its chunk has so many dimensions more."""
        kind = dtype, shape, leading
        skeleton = self._skeletons.get(kind)
        if skeleton is None:
            tensor = EmptyTensor(dtype, (1,) * leading + shape, 0)
            skeleton = self._skeletons[kind] = build_skeleton(pickled(tensor), [tensor.nbytes])
        return skeleton

    def write_metadata(self, folder: Path, files: Sequence[OutputFile], objects: Sequence[str]) -> None:
        """Write `.metadata`, and the object that all objects are: a list of nothing.

        Args:
            folder: Where the files lie that the plan's paths name last.
            files: All files.
            objects: The names of all objects.

        Raises:
            OSError: Where the disk is full or broken.
        """
        nothing = build_skeleton(pickled([None]), [])
        write_skeleton(folder / OBJECTS, nothing)
        metadata = MetadataPickle()
        for file in files:
            path = Path(file.path).name
            for name, (offset, skeleton) in self._items(file):
                dtype, shape = file.tensors[name]
                slot = self._slot_of(name)
                metadata.add_chunk(
                    (slot.name, *slot.others),
                    dtype,
                    slot.counts + shape,
                    slot.indices + (0,) * len(shape),
                    (1,) * len(slot.indices) + shape,
                    Place(path, offset, skeleton.length),
                )
        metadata.add_objects(objects, Place(OBJECTS, 0, nothing.length))
        (folder / METADATA).write_bytes(metadata.content())


def write_common(folder: Path, state: Mapping[str, Any]) -> None:
    """Write what is no tensor, and what says of which kind the folder is.

    Raises:
        OSError: Where the disk is full or broken.
    """
    write_skeleton(folder / COMMON, build_skeleton(pickled(dict(state)), []))
    (folder / VERSIONS).write_text(json.dumps({**_SAID, "common_backend_version": 1}), encoding="utf-8")


def _length(items: Mapping[Name, _Item]) -> int:
    """Bytes of a file."""
    return max((item.offset + item.skeleton.length for item in items.values()), default=0)


def _joined(pieces: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Yield pieces of a file that holds nothing else yet, in order, those with little between them as one."""
    begin = end = 0
    parts: list[bytes] = []
    for offset, data in pieces:
        if offset - end > _GAP or end - begin > _AT_ONCE:
            yield begin, b"".join(parts)
            begin, end, parts = offset, offset, []
        parts += (bytes(offset - end), data)
        end = offset + len(data)
    yield begin, b"".join(parts)
