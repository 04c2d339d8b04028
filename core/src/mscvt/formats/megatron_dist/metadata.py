"""Reading `.metadata`: which global tensors and objects a checkpoint has, and where the bytes of each chunk lie."""

from __future__ import annotations

import reprlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from math import prod
from operator import eq, itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from mscvt.errors import MscvtError, shown
from mscvt.formats.megatron_dist.classes import ALLOWED, CHUNK, INDEX, OBJECT, PLACE, PROPERTIES, TENSOR, WHOLE
from mscvt.formats.torch_zip.archive import reading
from mscvt.formats.torch_zip.native import unpickle_natively
from mscvt.formats.torch_zip.standins import Global, Pairs, Recorded, Storage, described
from mscvt.formats.torch_zip.unpickler import WORK, unpickle
from mscvt.layout.boxes import Box, untiled
from mscvt.records import dataclass
from mscvt.tensors.info import TORCH_NAMES

METADATA = ".metadata"
_LIMIT = 1 << 28
"""Bytes; two million chunks."""
_MOST_WORK = 100_000_000
_PLACE = ("relative_path", "offset", "length", "transform_descriptors")
_FEW_CHUNKS = 1_000_000
"""How many there may be more than places: those without elements have none."""
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
    """They cover it, each element once, in the order of their first ones. Those without elements are left out."""


class Metadata:
    """What `.metadata` says; what is said of a tensor is checked when it is asked for.

    Attributes:
        tensors: The names of all global tensors, as they are in the file.
        objects: The names of everything else.
    """

    def __init__(self, path: Path, whole: Recorded) -> None:
        self._path = path
        self._entries: dict[str, Recorded] = {}
        entries, places = whole.values("state_dict_metadata", "storage_data")
        for name, entry in _items(entries):
            if not isinstance(name, str) or not name.isprintable():
                raise MscvtError(f"has a name that is none: {_said(name)}")
            if not isinstance(entry, Recorded) or entry.kind not in (TENSOR, OBJECT):
                raise MscvtError(f"{name[:200]!r} is {described(entry)}, expected a tensor or an object")
            self._entries[name] = entry
        self.tensors = [name for name, entry in self._entries.items() if entry.kind == TENSOR]
        self.objects = [name for name, entry in self._entries.items() if entry.kind == OBJECT]
        self._objects: dict[str, Recorded] = {}
        self._placed: dict[str, list[tuple[tuple[int, ...], Recorded]]] = {}
        self._places = [*self._read_places(_items(places))]
        self._chunks_left = _FEW_CHUNKS + len(self._places)

    @property
    def files(self) -> set[str]:
        """The files that items lie in, as far as they are named."""
        said = (place.values(*_PLACE)[0] for place in self._places)
        return {file for file in said if isinstance(file, str)}

    def object(self, name: str) -> Place:
        """Where an object lies.

        Raises:
            MscvtError: Where nobody says.
        """
        with reading(self._path):
            if name not in self._objects:
                raise MscvtError(f"does not say where {name[:200]!r} lies")
            return _place(name, self._objects[name])

    def tensor(self, name: str) -> GlobalTensor:
        """What is said of a tensor.

        Raises:
            MscvtError: Where it makes no sense, its chunks leave something out or overlap, or its dtype is none
                that weights have.
        """
        with reading(self._path):
            properties, shape, chunks = self._entries[name].values("properties", "size", "chunks")
            _check_numbers([shape], name)
            dtype = _dtype(properties, name)
            if not isinstance(chunks, list):
                raise MscvtError(f"{name[:200]!r} has no list of chunks")
            self._chunks_left -= len(chunks)
            if self._chunks_left < 0:
                raise MscvtError("has more chunks than places, as if tensors had them in common")
            if strange := [c for c in chunks if not isinstance(c, Recorded) or c.kind != CHUNK]:
                raise MscvtError(f"a chunk of {name[:200]!r} is {described(strange[0])}")
            said = [chunk.values("offsets", "sizes") for chunk in chunks]
            _check_numbers([numbers for both in said for numbers in both], name)
            boxes = sorted(Box(*both) for both in said if prod(both[1]))
            places = self._places_of(name, boxes)
            found = [Chunk(box, _place(name, place)) for box, place in zip(boxes, places, strict=True)]
            if fault := untiled(shape, boxes):
                raise MscvtError(
                    f"the chunks of {name[:200]!r} don't cover it: {fault}",
                    hint="Was the checkpoint saved by all ranks, and is it one checkpoint?",
                )
            return GlobalTensor(dtype, shape, tuple(found))

    def _read_places(self, said: Iterable[tuple[Any, Any]]) -> Iterator[Recorded]:
        """Note the place of each item by its name and, where it is a chunk, its offsets; yield the place.

        No hash is made of offsets, as any number of tuples can be made to have one.
        """
        every: list[Any] = []
        for index, place in said:
            if not isinstance(index, Recorded) or index.kind != INDEX:
                raise MscvtError(f"one of its items is named by {described(index)}")
            if not isinstance(place, Recorded) or place.kind != PLACE:
                raise MscvtError(f"the place of one of its items is {described(place)}")
            name, _, offsets = index.values("fqn", "index", "offset")
            if type(name) is not str:
                raise MscvtError(f"one of its items has a name that is {described(name)}")
            if offsets is not None:
                every.append(offsets)
                self._placed.setdefault(name, []).append((offsets, place))
            elif name in self._objects:
                raise MscvtError(f"two of its items are the object {name[:200]!r}")
            else:
                self._objects[name] = place
            yield place
        _check_numbers(every, "one of its items")

    def _places_of(self, name: str, boxes: Iterable[Box]) -> Iterator[Recorded]:
        """Yield where the chunks of a tensor lie."""
        placed = sorted(self._placed.get(name, ()), key=itemgetter(0))
        there = [offsets for offsets, _ in placed]
        if any(map(eq, there, there[1:])):
            raise MscvtError(f"two of its items are one chunk of {name[:200]!r}")
        for offsets, _ in boxes:
            at = bisect_left(there, offsets)
            if there[at : at + 1] != [offsets]:
                raise MscvtError(f"does not say where the chunk at {list(offsets)} of {name[:200]!r} lies")
            yield placed[at][1]


def _place(name: str, said: Recorded) -> Place:
    file, start, length, transformed = said.values(*_PLACE)
    if transformed:
        raise MscvtError(
            f"{name[:200]!r} is stored transformed, by {_said(transformed)}",
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
        whole = unpickle_natively(data, ALLOWED)
        if whole is None:
            whole = unpickle(data, _no_storage, min(WORK + 2 * len(data), _MOST_WORK), ALLOWED)
        if not isinstance(whole, Recorded) or whole.kind not in WHOLE:
            raise MscvtError(f"holds {described(whole)}, expected the metadata of torch.distributed.checkpoint")
        return Metadata(path, whole)


def _no_storage(_pid: Any) -> Storage:
    raise MscvtError("its pickle refers to tensors, which it does not hold")


def _said(value: Any) -> str:
    """What a value is, whatever it is: tuples in tuples can be as many as they like."""
    return shown(reprlib.repr(value), 100)


def _items(said: Any) -> Iterable[tuple[Any, Any]]:
    """Key and value of everything in what was a dict."""
    if isinstance(said, dict):
        return said.items()
    if not isinstance(said, Pairs) or len(said) % 2:
        raise MscvtError("has no list of tensors, or none of their places")
    return zip(said[::2], said[1::2], strict=True)


def _dtype(properties: Any, name: str) -> str:
    """A tensor's dtype from the state of its properties, of which it is the first entry."""
    if isinstance(properties, Recorded) and properties.kind == PROPERTIES:
        state = properties.state
        dtype = state[0] if isinstance(state, tuple) and state else properties.values("dtype")[0]
        if isinstance(dtype, Global):
            if (known := _DTYPES.get(str(dtype))) is not None:
                return known
            raise MscvtError(f"{name[:200]!r} is of dtype {dtype!s}, expected {', '.join(TORCH_NAMES.values())}")
    raise MscvtError(f"does not say which dtype {name[:200]!r} has")


def _is_number(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < _LARGEST


def _check_numbers(values: Sequence[Any], name: str) -> None:
    """Refuse shapes or offsets that are no whole numbers; they are looked at all at once, as there are many.

    Raises:
        MscvtError: Where one is none.
    """
    if {tuple}.issuperset(map(type, values)) and max(map(len, values), default=0) <= _DIMENSIONS:
        numbers = [*chain.from_iterable(values)]
        are_whole = {int}.issuperset(map(type, numbers))
        if are_whole and min(numbers, default=0) >= 0 and max(numbers, default=0) < _LARGEST:
            return
    raise MscvtError(f"{name[:200]!r} has a shape or offset that is no list of whole numbers")
