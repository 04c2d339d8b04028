"""Blocks: contiguous runs of a target tensor, small enough for a buffer, and how to fill one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import torch

from mscvt.engine.strided import copy_strided
from mscvt.plan.contents import Content, Copy, Name, Region
from mscvt.tensors.info import ITEM_SIZES, TORCH_NAMES
from mscvt.tensors.sources import SourceTensor

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Elements are moved as integers of their size, so that no NaN can change on the way."""


@dataclass(frozen=True, slots=True)
class Block:
    """Elements `[start, start + numel)` of a content.

    One index for each of the outer axes of a region, a range of the next axis, the inner axes whole.
    """

    content: Content
    region: Region
    outer: tuple[int, ...]
    first: int
    count: int
    start: int
    numel: int


def blocks_of(content: Content, limit: int) -> Iterator[Block]:
    """Divide a content into blocks of at most `limit` bytes, in the order of its memory."""
    room = max(1, limit // ITEM_SIZES[content.dtype])
    for region in content.regions:
        sizes = region.sizes
        if 0 in sizes:
            continue
        axis = next(a for a in range(len(sizes)) if prod(sizes[a + 1 :]) <= room)
        inner = prod(sizes[axis + 1 :])
        step = min(sizes[axis], room // inner)
        for number, outer in enumerate(product(*map(range, sizes[:axis]))):
            for first in range(0, sizes[axis], step):
                count = min(step, sizes[axis] - first)
                start = region.base + (number * sizes[axis] + first) * inner
                yield Block(content, region, outer, first, count, start, count * inner)


def fill(block: Block, buffer: torch.Tensor, open_source: Callable[[Name], SourceTensor]) -> torch.Tensor:
    """Put a block's elements into a buffer of bytes.

    Returns:
        The bytes of the block, a view of the buffer.
    """
    width = ITEM_SIZES[block.content.dtype]
    taken = buffer[: block.numel * width]
    dtype = getattr(torch, TORCH_NAMES[block.content.dtype])
    elements = taken.view(dtype)
    strides = _row_major(block.region.sizes)
    for copy in block.region.copies:
        overlap = _overlap(block, copy)
        if overlap is None:
            continue
        starts, extents = overlap
        offset = sum(start * stride for start, stride in zip(starts, strides, strict=True)) - (
            block.start - block.region.base
        )
        target = elements.as_strided(extents, strides, elements.storage_offset() + offset)
        if copy.source is None:
            target.zero_()
            continue
        moved = sum(
            (start - whole) * stride for start, whole, stride in zip(starts, copy.starts, copy.strides, strict=True)
        )
        source = open_source(block.content.sources[copy.source]).region(copy.offset + moved, extents, copy.strides)
        if source.dtype == dtype:
            copy_strided(target.view(_BITS[width]), source.view(_BITS[width]))
        else:
            target.copy_(source)
    return taken


def _row_major(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(sizes[axis + 1 :]) for axis in range(len(sizes)))


def _overlap(block: Block, copy: Copy) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Where a copy's box meets the block: starts on the region's axes and extents, or None."""
    depth = len(block.outer)
    starts, extents = list(copy.starts), list(copy.extents)
    for axis, index in enumerate(block.outer):
        if not starts[axis] <= index < starts[axis] + extents[axis]:
            return None
        starts[axis], extents[axis] = index, 1
    low = max(starts[depth], block.first)
    high = min(starts[depth] + extents[depth], block.first + block.count)
    if low >= high:
        return None
    starts[depth], extents[depth] = low, high - low
    return tuple(starts), tuple(extents)
