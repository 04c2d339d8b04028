"""Blocks: contiguous runs of a target tensor, small enough for a buffer, and how to fill one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from mscvt.engine.strided import copy_strided
from mscvt.layout.pairs import clip
from mscvt.plan.contents import Content, Name
from mscvt.tensors.info import ITEM_SIZES, TORCH_NAMES
from mscvt.tensors.sources import Computed, SourceTensor

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Elements are moved as integers of their size, so that no NaN can change on the way."""


@dataclass(frozen=True, slots=True)
class Block:
    """Elements `[start, start + numel)` of a content."""

    content: Content
    start: int
    numel: int


def blocks_of(content: Content, limit: int) -> Iterator[Block]:
    """Divide a content into blocks of at most `limit` bytes, in the order of its memory.

    Blocks end where the largest step of a copy ends that fits, so that matrices are not torn in the middle of a row.
    """
    room = max(1, limit // ITEM_SIZES[content.dtype])
    steps = {loop.left for copy in content.copies for loop in copy.pair.loops if loop.left <= room}
    step = max(steps, default=1)
    room = room // step * step
    for start in range(0, content.numel, room):
        yield Block(content, start, min(room, content.numel - start))


def fill(block: Block, buffer: torch.Tensor, open_source: Callable[[Name], SourceTensor]) -> torch.Tensor:
    """Put a block's elements into a buffer of bytes.

    Returns:
        The bytes of the block, a view of the buffer.
    """
    content = block.content
    width = ITEM_SIZES[content.dtype]
    taken = buffer[: block.numel * width]
    dtype = getattr(torch, TORCH_NAMES[content.dtype])
    elements = taken.view(dtype)
    for number, whole in content.copies:
        for walk in clip(whole, block.start, block.start + block.numel):
            extents = tuple(loop.extent for loop in walk.loops)
            strides = tuple(loop.left for loop in walk.loops)
            target = elements.as_strided(extents, strides, elements.storage_offset() + walk.left)
            if number is None:
                target.zero_()
                continue
            by = tuple(loop.right for loop in walk.loops)
            source = open_source(content.sources[number])
            if isinstance(source, Computed):
                source.write(target, walk.right, by, _move)
            else:
                _move(target, source.region(walk.right, extents, by))
    return taken


def _move(target: torch.Tensor, source: torch.Tensor) -> None:
    """Copy elements, as bits where the dtype stays."""
    if source.dtype == target.dtype:
        bits = _BITS[target.dtype.itemsize]
        copy_strided(target.view(bits), source.view(bits))
    else:
        target.copy_(source)
