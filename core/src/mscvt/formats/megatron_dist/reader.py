"""Opening a folder of `torch.distributed.checkpoint`: its global tensors as something to copy from."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from operator import mul
from pathlib import Path
from typing import Any

from mscvt.errors import MscvtError
from mscvt.formats.files import file_inside, refuse_pointer
from mscvt.formats.megatron_dist.items import ItemReader
from mscvt.formats.megatron_dist.metadata import METADATA, Chunk, GlobalTensor, read_metadata
from mscvt.formats.torch_zip.reader import load
from mscvt.layout.boxes import Box, walk_of
from mscvt.layout.pairs import Pair, run_of
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
        self._firsts: dict[str, list[int]] = {}
        self._walks: dict[tuple[tuple[int, ...], tuple[int, ...]], Pair] = {}
        self._opened: dict[str, Assembled] = {}
        self._lock = threading.Lock()
        for name in sorted(filter(wanted, self.metadata.tensors)):
            said = self._said[name] = self.metadata.tensor(name)
            self._check(said.chunks)
            strides = [prod(said.shape[at + 1 :]) for at in range(len(said.shape))]
            self._firsts[name] = [sum(map(mul, box.offsets, strides)) for box, _ in said.chunks]
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
                    Part(self._walk(said.shape, chunk.box).moved(first), partial(self._item, said.dtype, chunk))
                    for chunk, first in zip(said.chunks, self._firsts[name], strict=True)
                ]
                self._opened[name] = Assembled(said.dtype, parts)
            return self._opened[name]

    def run(self, name: str, start: int, count: int) -> SourceTensor:
        """So many elements of a tensor from one on: to be asked for anew each time, as most are a chunk of a file.

        Raises:
            MscvtError: As `tensor`.
        """
        said = self._said[name]
        at = self._chunk_of(name, start)
        if at >= 0 and self._firsts[name][at] == start:
            chunk = said.chunks[at]
            if prod(chunk.box.sizes) == count and self._walk(said.shape, chunk.box).is_run:
                return self._item(said.dtype, chunk)
        return Assembled(said.dtype, [Part(run_of(0, start, count), partial(self.tensor, name))])

    def begins(self, name: str, element: int) -> tuple[int, int]:
        """The file and the byte in it from which on an element of a tensor lies, roughly: work is ordered by it."""
        place = self._said[name].chunks[max(0, self._chunk_of(name, element))].place
        return self._numbers[place.file], place.offset

    def _chunk_of(self, name: str, element: int) -> int:
        """The number of the last chunk that begins at an element or before; -1 where there is none."""
        return bisect_right(self._firsts[name], element) - 1

    def _walk(self, shape: tuple[int, ...], box: Box) -> Pair:
        """A walk through a box of a tensor as if it began where the tensor does; most boxes differ in that alone."""
        key = shape, box.sizes
        if key not in self._walks:
            self._walks[key] = walk_of(shape, Box((0,) * len(shape), box.sizes))
        return self._walks[key]

    def _item(self, dtype: str, chunk: Chunk) -> SourceTensor:
        return self._items.tensor(self._numbers[chunk.place.file], chunk.place, dtype, chunk.box.sizes)

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

    def _check(self, chunks: Sequence[Chunk]) -> None:
        """See that items lie inside of files of the folder."""
        for _, (file, offset, length) in chunks:
            if file not in self._numbers:
                path = file_inside(self.folder, file, METADATA)
                self._numbers[file] = len(self.files)
                self._sizes[file] = path.stat().st_size
                self.files.append(path)
            if offset + length > (size := self._sizes[file]):
                raise MscvtError(
                    f"{self.folder / file}: has {size:,} bytes, {METADATA} speaks of byte {offset + length:,}",
                    hint="Is the copy complete?",
                )
