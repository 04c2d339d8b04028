"""Blocks: contiguous runs of a target tensor, small enough for a buffer, and where their bytes are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from mscvt.engine.strided import copy_strided
from mscvt.layout.pairs import Loop, Pair, clip
from mscvt.plan.contents import Content, Name
from mscvt.records import dataclass
from mscvt.tensors.bits import Bits, PlainTensor
from mscvt.tensors.computing import cast
from mscvt.tensors.info import ITEM_SIZES
from mscvt.tensors.sources import SourceTensor, is_computed

_LEAST_RUN = 1 << 16
"""Bytes from which on a run costs less as one of its own than to be gathered with others."""
_LONGEST_RUN = 1 << 20
"""Bytes that are taken, and where the source has to compute them are computed, at once."""


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
    if 0 < content.numel <= room:
        yield Block(content, 0, content.numel)
        return
    steps = {loop.left for copy in content.copies for loop in copy.pair.loops if loop.left <= room}
    step = max(steps, default=1)
    room = room // step * step
    for start in range(0, content.numel, room):
        yield Block(content, start, min(room, content.numel - start))


def bytes_of(
    block: Block, buffer: Bits, open_source: Callable[[Name], SourceTensor], least_run: int = _LEAST_RUN
) -> Iterator[Bits]:
    """The bytes of a block, as few at a time that what is computed for them stays in the processor's cache.

    Args:
        block: The block.
        buffer: Bytes, as many as the block has at least.
        open_source: Gives a source tensor by its name.
        least_run: Bytes from which on a run is taken from its source.

    Yields:
        Bytes that together are the block's, in order, each to be used before the next: those of the sources themselves
        where they lie there in long runs, so that nothing but their reader moves them, else a view of the buffer.
    """
    content = block.content
    width = ITEM_SIZES[content.dtype]
    walks = [
        (number, walk)
        for number, whole in content.copies
        for walk in clip(whole, block.start, block.start + block.numel)
    ]
    opened = {number: open_source(content.sources[number]) for number, _ in walks if number is not None}
    runs: list[tuple[int, int, int, int]] = []
    for number, walk in walks:
        *outer, inner = walk.loops or (Loop(1, 1, 1),)
        is_run = inner.left == inner.right == 1 and inner.extent >= min(block.numel, least_run // width)
        if number is None or not is_run or is_computed(opened[number]):
            yield _gathered(block, buffer, walks, opened)
            return
        for at in product(*(range(loop.extent) for loop in outer)):
            left = sum(index * loop.left for index, loop in zip(at, outer, strict=True))
            right = sum(index * loop.right for index, loop in zip(at, outer, strict=True))
            runs.append((walk.left + left, number, walk.right + right, inner.extent))
    room = _LONGEST_RUN // width
    for _, number, right, extent in sorted(runs):
        source = opened[number]
        for start in range(0, extent, room):
            run = source.region(right + start, (min(room, extent - start),), (1,))
            if source.dtype != content.dtype:
                target = PlainTensor(buffer, content.dtype).region(0, run.shape, (1,))
                cast(target, content.dtype, run, source.dtype)
                run = target
            yield np.ascontiguousarray(run).view(np.uint8)


def _gathered(
    block: Block, buffer: Bits, walks: Sequence[tuple[int | None, Pair]], opened: Mapping[int, SourceTensor]
) -> Bits:
    """Put a block's elements where there is room for them; returns their bytes."""
    dtype = block.content.dtype
    elements = PlainTensor(buffer, dtype)
    for number, walk in walks:
        extents = tuple(loop.extent for loop in walk.loops)
        target = elements.region(walk.left, extents, tuple(loop.left for loop in walk.loops))
        if number is None:
            target.fill(0)
            continue
        source, by = opened[number], tuple(loop.right for loop in walk.loops)
        if is_computed(source):
            source.write(target, dtype, walk.right, by, move)
        else:
            move(target, dtype, source.region(walk.right, extents, by), source.dtype)
    return buffer[: block.numel * ITEM_SIZES[dtype]]


def move(target: Bits, dtype: str, source: Bits, from_dtype: str) -> None:
    """Copy elements to others of the same shape, as bits where the dtype stays; see `mscvt.tensors.sources.Move`."""
    if dtype == from_dtype:
        copy_strided(target, source)
    else:
        cast(target, dtype, source, from_dtype)
