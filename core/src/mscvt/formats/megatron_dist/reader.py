"""Opening a folder of `torch.distributed.checkpoint`: its global tensors as something to copy from."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from mscvt.errors import MscvtError
from mscvt.formats.files import file_inside, refuse_pointer
from mscvt.formats.megatron_dist.items import ItemReader
from mscvt.formats.megatron_dist.metadata import METADATA, Chunk, GlobalTensor, read_metadata
from mscvt.formats.torch_zip.reader import load
from mscvt.layout.boxes import walk_of
from mscvt.tensors.assembled import Assembled, Part
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.sources import SourceTensor


class GlobalSource:
    """The global tensors of a folder, those that were asked for.

    Attributes:
        folder: The folder.
        metadata: What its `.metadata` says.
        files: The files that tensors lie in, then `.metadata`.
        tensors: Every tensor by its name. File and offset are those of its first chunk's item.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, folder: Path, wanted: Callable[[str], bool]) -> None:
        """Read `.metadata`.

        Args:
            folder: The folder.
            wanted: Whether a tensor of this name is wanted; the others are left alone, whatever is said of them.

        Raises:
            MscvtError: Where it can't be read or contradicts itself, or a file is missing or too short.
        """
        self.folder = folder
        path = file_inside(folder, METADATA, "the checkpoint")
        with path.open("rb") as file:
            refuse_pointer(path, file.read(64))
        self.metadata = read_metadata(folder)
        self.files: list[Path] = []
        self.tensors: dict[str, TensorInfo] = {}
        self._numbers: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._said: dict[str, GlobalTensor] = {}
        self._starts: dict[str, list[tuple[int, int, int]]] = {}
        self._opened: dict[str, Assembled] = {}
        self._lock = threading.Lock()
        for name in sorted(filter(wanted, self.metadata.tensors)):
            said = self._said[name] = self.metadata.tensor(name)
            for chunk in said.chunks:
                self._check(chunk)
            self.tensors[name] = TensorInfo(said.dtype, said.shape, *(self.begins(name, 0) if said.chunks else (0, 0)))
        self._items = ItemReader(tuple(self.files))
        self.files.append(path)

    def tensor(self, name: str) -> SourceTensor:
        """The elements of a tensor.

        Raises:
            MscvtError: Where an item is not what `.metadata` says, when it is read.
        """
        with self._lock:
            if name not in self._opened:
                said = self._said[name]
                parts = [
                    Part(
                        walk_of(said.shape, box),
                        partial(self._items.tensor, self._numbers[place.file], place, said.dtype, box.sizes),
                    )
                    for box, place in said.chunks
                ]
                self._opened[name] = Assembled(said.dtype, parts)
            return self._opened[name]

    def begins(self, name: str, element: int) -> tuple[int, int]:
        """The file and the byte in it from which on an element of a tensor lies, roughly: work is ordered by it."""
        starts = self._starts.get(name)
        if starts is None:
            said, numbers = self._said[name], self._numbers
            starts = self._starts[name] = sorted(
                (walk_of(said.shape, box).left, numbers[place.file], place.offset) for box, place in said.chunks
            )
        _, file, offset = starts[max(0, bisect_right(starts, element, key=itemgetter(0)) - 1)]
        return file, offset

    def chunks(self, name: str) -> tuple[Chunk, ...]:
        """What a tensor consists of, and where that lies."""
        return self._said[name].chunks

    def close(self) -> None:
        """Let go of every open file."""
        with self._lock:
            self._opened.clear()
            self._items.close()

    def object(self, name: str) -> Any:
        """What an object holds that is no tensor, with stand-ins for whatever is not plain.

        Raises:
            MscvtError: Where it can't be read.
        """
        place = self.metadata.object(name)
        return load(file_inside(self.folder, place.file, METADATA), place.offset, place.length)

    def _check(self, chunk: Chunk) -> None:
        """See that an item lies inside of a file of the folder."""
        place = chunk.place
        if place.file not in self._numbers:
            path = file_inside(self.folder, place.file, METADATA)
            self._numbers[place.file] = len(self.files)
            self._sizes[place.file] = path.stat().st_size
            self.files.append(path)
        if place.offset + place.length > (size := self._sizes[place.file]):
            raise MscvtError(
                f"{self.folder / place.file}: has {size:,} bytes, {METADATA} speaks of byte "
                f"{place.offset + place.length:,}",
                hint="Is the copy complete?",
            )
