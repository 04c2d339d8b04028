"""Where blocks go: into the files of an output, or against those of an existing one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from mscvt.engine.blocks import Block
from mscvt.errors import MscvtError
from mscvt.plan.contents import Name
from mscvt.sources import SourceTensor
from mscvt.tensors import ITEM_SIZES


class Sink(Protocol):
    """Takes finished blocks, from any thread, in any order, any of them again."""

    def put(self, block: Block, data: torch.Tensor) -> int:
        """Take the bytes of a block for all its targets; returns how many bytes that were in all."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a target tensor begins."""

    descriptor: int
    """An open file."""
    offset: int
    """Bytes from the file's start."""


class FileSink:
    """Writes blocks to their places in open files."""

    def __init__(self, places: Mapping[Name, Place]) -> None:
        self.places = places

    def put(self, block: Block, data: torch.Tensor) -> int:
        """Write the bytes to every target that has a place.

        Raises:
            OSError: Where the disk is full or broken.
        """
        view = memoryview(data.numpy())  # type: ignore[arg-type]  # numpy's arrays are buffers
        written = 0
        for target in block.content.targets:
            place = self.places.get(target)
            if place is not None:
                _write(place, block.start * ITEM_SIZES[block.content.dtype], view)
                written += len(view)
        return written


def _write(place: Place, offset: int, view: memoryview) -> None:
    position, done = place.offset + offset, 0
    while done < len(view):
        done += os.pwrite(place.descriptor, view[done:], position + done)


class CompareSink:
    """Compares blocks with a checkpoint that exists; remembers the first differing element of each tensor."""

    def __init__(self, open_existing: Callable[[Name], SourceTensor], wanted: Container[Name] | None = None) -> None:
        """Compare the targets that are wanted; None for all of them."""
        self.open_existing = open_existing
        self.wanted = wanted
        self.differences: dict[Name, int] = {}
        """Target -> number of its first differing element in memory order."""
        self._lock = threading.Lock()

    def put(self, block: Block, data: torch.Tensor) -> int:
        """Compare the bytes with every target."""
        width = ITEM_SIZES[block.content.dtype]
        compared = 0
        for target in block.content.targets:
            if self.wanted is not None and target not in self.wanted:
                continue
            existing = self.open_existing(target).region(block.start, (block.numel,), (1,))
            if existing.element_size() != width:
                raise MscvtError(f"{target}: compared with elements of another size")
            theirs = existing.view(torch.uint8)
            if not torch.equal(data, theirs):
                differing = torch.nonzero(data != theirs)[0].item()
                first = block.start + int(differing) // width
                with self._lock:
                    self.differences[target] = min(first, self.differences.get(target, first))
            compared += data.numel()
        return compared
