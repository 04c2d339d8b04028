"""Reading `.metadata`: which global tensors and objects a checkpoint has, and where the bytes of each chunk lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from mscvt.errors import MscvtError, shown
from mscvt.formats.megatron_dist.classes import ALLOWED, CHUNK, INDEX, OBJECT, PLACE, PROPERTIES, TENSOR, WHOLE
from mscvt.formats.torch_zip.archive import reading
from mscvt.formats.torch_zip.standins import Global, Recorded, Storage, described
from mscvt.formats.torch_zip.unpickler import WORK, unpickle
from mscvt.layout.boxes import Box, untiled
from mscvt.tensors.info import TORCH_NAMES

METADATA = ".metadata"
_LIMIT = 1 << 28
"""Bytes; two million chunks."""
_MOST_WORK = 100_000_000
_DIMENSIONS = 64
_LARGEST = 1 << 62
_DTYPES = {f"torch.{torch_name}": name for name, torch_name in TORCH_NAMES.items()}


class Place(NamedTuple):
    """Where an item lies: a whole file of `torch.save` inside of another one."""

    file: str
    """Below the checkpoint's folder."""
    offset: int
    """Bytes from the file's start."""
    length: int


class Chunk(NamedTuple):
    """A box of a global tensor."""

    box: Box
    place: Place


@dataclass(frozen=True, slots=True)
class GlobalTensor:
    """A tensor as the whole training run knows it."""

    dtype: str
    """safetensors' name."""
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]
    """They cover it, each element once. Those without elements are left out."""


class Metadata:
    """What `.metadata` says; what is said of a tensor is checked when it is asked for.

    Attributes:
        tensors: The names of all global tensors, as they are in the file.
        objects: The names of everything else.
        attributes: What else the file says, which tells who wrote it.
        kind: The full name of the class of it all.
    """

    def __init__(self, path: Path, whole: Recorded) -> None:
        self._path = path
        self.kind, self.attributes = whole.kind, whole.attributes
        entries, places = self.attributes.get("state_dict_metadata"), self.attributes.get("storage_data")
        if not isinstance(entries, dict) or not isinstance(places, dict):
            raise MscvtError("has no list of tensors, or none of their places")
        self._entries: dict[str, Recorded] = {}
        for name, entry in entries.items():
            if not isinstance(name, str) or not name.isprintable():
                raise MscvtError(f"has a name that is none: {shown(ascii(name))}")
            if not isinstance(entry, Recorded) or entry.kind not in (TENSOR, OBJECT):
                raise MscvtError(f"{name[:200]!r} is {described(entry)}, expected a tensor or an object")
            self._entries[name] = entry
        self.tensors = [name for name, entry in self._entries.items() if entry.kind == TENSOR]
        self.objects = [name for name, entry in self._entries.items() if entry.kind == OBJECT]
        self._places = _places(places)

    @property
    def files(self) -> set[str]:
        """The files that items lie in, as far as they are named."""
        said = (place.attributes.get("relative_path") for place in self._places.values())
        return {file for file in said if isinstance(file, str)}

    def object(self, name: str) -> Place:
        """Where an object lies.

        Raises:
            MscvtError: Where nobody says.
        """
        with reading(self._path):
            return self._place(name, None)

    def tensor(self, name: str) -> GlobalTensor:
        """What is said of a tensor.

        Raises:
            MscvtError: Where it makes no sense, its chunks leave something out or overlap, or its dtype is none
                that weights have.
        """
        with reading(self._path):
            said = self._entries[name].attributes
            shape = _numbers(said.get("size"), name)
            dtype = _dtype(said.get("properties"), name)
            chunks = said.get("chunks")
            if not isinstance(chunks, list):
                raise MscvtError(f"{name[:200]!r} has no list of chunks")
            found: list[Chunk] = []
            for chunk in chunks:
                if not isinstance(chunk, Recorded) or chunk.kind != CHUNK:
                    raise MscvtError(f"a chunk of {name[:200]!r} is {described(chunk)}")
                box = Box(
                    _numbers(chunk.attributes.get("offsets"), name), _numbers(chunk.attributes.get("sizes"), name)
                )
                if prod(box.sizes):
                    found.append(Chunk(box, self._place(name, box.offsets)))
            if fault := untiled(shape, [chunk.box for chunk in found]):
                raise MscvtError(
                    f"the chunks of {name[:200]!r} don't cover it: {fault}",
                    hint="Was the checkpoint saved by all ranks, and is it one checkpoint?",
                )
            return GlobalTensor(dtype, shape, tuple(found))

    def _place(self, name: str, offset: tuple[int, ...] | None) -> Place:
        place = self._places.get((name, offset))
        if place is None:
            at = "" if offset is None else f"the chunk at {list(offset)} of "
            raise MscvtError(f"does not say where {at}{name[:200]!r} lies")
        said = place.attributes
        file, start, length = said.get("relative_path"), said.get("offset"), said.get("length")
        if said.get("transform_descriptors"):
            raise MscvtError(
                f"{name[:200]!r} is stored transformed, by {shown(ascii(said['transform_descriptors']), 100)}",
                hint="Save it without compression or other extensions.",
            )
        if not isinstance(file, str) or not _is_number(start) or not _is_number(length):
            raise MscvtError(f"does not say in which file and where {name[:200]!r} lies")
        return Place(file, start, length)


def read_metadata(folder: Path) -> Metadata:
    """Read the `.metadata` of a folder; nothing in it is executed.

    Raises:
        MscvtError: Where it can't be read, holds a name that no such file has, or is no such file.
    """
    path = folder / METADATA
    with reading(path):
        size = path.stat().st_size
        if size > _LIMIT:
            raise MscvtError(f"has {size:,} bytes, more than any checkpoint's")
        data = path.read_bytes()
        whole = unpickle(data, _no_storage, min(WORK + 2 * len(data), _MOST_WORK), ALLOWED)
        if not isinstance(whole, Recorded) or whole.kind not in WHOLE:
            raise MscvtError(f"holds {described(whole)}, expected the metadata of torch.distributed.checkpoint")
        return Metadata(path, whole)


def _no_storage(_pid: Any) -> Storage:
    raise MscvtError("its pickle refers to tensors, which it does not hold")


def _places(said: Mapping[Any, Any]) -> dict[tuple[str, tuple[int, ...] | None], Recorded]:
    """The place of each item by its tensor's name and its offsets in it."""
    found: dict[tuple[str, tuple[int, ...] | None], Recorded] = {}
    for index, place in said.items():
        if not isinstance(index, Recorded) or index.kind != INDEX:
            raise MscvtError(f"one of its items is named by {described(index)}")
        if not isinstance(place, Recorded) or place.kind != PLACE:
            raise MscvtError(f"the place of one of its items is {described(place)}")
        name, offset = index.attributes.get("fqn"), index.attributes.get("offset")
        if not isinstance(name, str):
            raise MscvtError(f"one of its items has a name that is {described(name)}")
        key = name, None if offset is None else _numbers(offset, name)
        if key in found:
            raise MscvtError(f"two of its items are one chunk of {name[:200]!r}")
        found[key] = place
    return found


def _dtype(properties: Any, name: str) -> str:
    """A tensor's dtype from the state of its properties, of which it is the first entry."""
    if isinstance(properties, Recorded) and properties.kind == PROPERTIES:
        state = properties.state
        dtype = state[0] if isinstance(state, tuple) and state else properties.attributes.get("dtype")
        if isinstance(dtype, Global):
            if (known := _DTYPES.get(str(dtype))) is not None:
                return known
            raise MscvtError(f"{name[:200]!r} is of dtype {dtype!s}, expected {', '.join(TORCH_NAMES.values())}")
    raise MscvtError(f"does not say which dtype {name[:200]!r} has")


def _is_number(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < _LARGEST


def _numbers(value: Any, name: str) -> tuple[int, ...]:
    if isinstance(value, (tuple, list)) and len(value) <= _DIMENSIONS and all(map(_is_number, value)):
        return tuple(value)
    raise MscvtError(f"{name[:200]!r} has a shape or offset that is no list of whole numbers")
