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
from mscvt.tensors.info import ITEM_SIZES
from mscvt.tensors.sources import SourceTensor

_STEP = 1 << 16
"""Elements looked at together where blocks differ, so that finding the first one takes little memory."""


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

    def __init__(
        self,
        open_existing: Callable[[Name], SourceTensor],
        wanted: Container[Name] | None = None,
        *,
        ignore_padding: bool = False,
    ) -> None:
        """Compare the targets that are wanted, None for all of them; padding of a trained model is not zero."""
        self.open_existing = open_existing
        self.wanted = wanted
        self.ignore_padding = ignore_padding
        self.differences: dict[Name, int] = {}
        """Target -> number of its first differing element in memory order."""
        self.padded: set[Name] = set()
        """Targets whose padding differs and was ignored."""
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
                self._find(target, block, data.view(-1, width), theirs.view(-1, width))
            compared += data.numel()
        return compared

    def _find(self, target: Name, block: Block, ours: torch.Tensor, theirs: torch.Tensor) -> None:
        """Note the first element that differs; both are bytes `[elements, width]`."""
        for start in range(0, block.numel, _STEP):
            differing = (ours[start : start + _STEP] != theirs[start : start + _STEP]).any(dim=1)
            elements = torch.nonzero(differing).flatten() + start + block.start
            real = elements[~_is_padding(block, elements)] if self.ignore_padding else elements
            with self._lock:
                if len(real) < len(elements):
                    self.padded.add(target)
                if len(real):
                    first = int(real[0])
                    self.differences[target] = min(first, self.differences.get(target, first))
                    return


def _is_padding(block: Block, elements: torch.Tensor) -> torch.Tensor:
    """Which elements of a target, given by their numbers, are filled with zeros and come from nowhere."""
    found = torch.zeros(len(elements), dtype=torch.bool)
    for number, walk in block.content.copies:
        if number is None:
            rest = elements - walk.left
            inside = (rest >= 0) & (elements < walk.left_end)
            for loop in walk.loops:
                index = (rest // loop.left).clamp(0, loop.extent - 1)
                rest = rest - index * loop.left
            found |= inside & (rest == 0)
    return found
