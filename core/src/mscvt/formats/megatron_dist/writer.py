"""Allocating the files of a `torch_dist` checkpoint, whose items are filled in place, and what makes it whole.

What lies around the bytes of a tensor depends on its dtype and shape alone, so that it is made once for each of them.
Items begin at multiples of 64 bytes; `.metadata` says where.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mscvt.errors import MscvtError
from mscvt.formats.megatron_dist.metadata import METADATA
from mscvt.formats.megatron_dist.metadata_written import Chunk, Index, Object, Place, Size, Tensor, metadata_pickle
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
        self._skeletons: dict[tuple[str, tuple[int, ...]], Skeleton] = {}

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
            for item in items.values():
                write_pieces(descriptor, [(item.offset + at, data) for at, data in item.skeleton.pieces])
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
            skeleton = self._skeleton(dtype, (*(1 for _ in self._slot_of(name).indices), *shape))
            yield name, _Item(at, skeleton)
            at += -(-skeleton.length // ALIGNMENT) * ALIGNMENT

    def _skeleton(self, dtype: str, shape: tuple[int, ...]) -> Skeleton:
        if (dtype, shape) not in self._skeletons:
            tensor = EmptyTensor(dtype, shape, 0)
            self._skeletons[dtype, shape] = build_skeleton(pickled(tensor), [tensor.nbytes])
        return self._skeletons[dtype, shape]

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
        tensors, places = self._described(files)
        places |= {Index(name): Place(OBJECTS, 0, nothing.length) for name in objects}
        content = metadata_pickle({**tensors, **{name: Object() for name in objects}}, places)
        (folder / METADATA).write_bytes(content)

    def _described(self, files: Sequence[OutputFile]) -> tuple[dict[str, Tensor], dict[Index, Place]]:
        """The global tensors, and the places of their chunks."""
        tensors: dict[str, Tensor] = {}
        places: dict[Index, Place] = {}
        for file in files:
            path = Path(file.path).name
            for name, item in self._items(file):
                dtype, shape = file.tensors[name]
                slot = self._slot_of(name)
                offsets = Size((*slot.indices, *(0 for _ in shape)))
                chunk = Chunk(offsets, Size((*(1 for _ in slot.indices), *shape)))
                place = Place(path, item.offset, item.skeleton.length)
                for key in (slot.name, *slot.others):
                    if key not in tensors:
                        tensors[key] = Tensor(dtype, Size((*slot.counts, *shape)))
                    tensors[key].chunks.append(chunk)
                    places[Index(key, offsets)] = place
        return tensors, places


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
