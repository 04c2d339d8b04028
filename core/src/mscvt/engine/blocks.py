"""Blocks: contiguous runs of a target tensor, small enough for a buffer, and where their bytes are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, product
from typing import NamedTuple

import numpy as np

from mscvt.engine.strided import copy_strided
from mscvt.layout.pairs import Loop, Pair, clip
from mscvt.plan.contents import Content, Copy, Name
from mscvt.tensors.bits import Bits, PlainTensor
from mscvt.tensors.computing import cast
from mscvt.tensors.info import ITEM_SIZES
from mscvt.tensors.sources import SourceTensor, is_computed

_LEAST_RUN = 1 << 16
"""Bytes from which on a run costs less as one of its own than to be gathered with others."""
_LONGEST_RUN = 1 << 20
"""Bytes that are taken, and where the source has to compute them are computed, at once."""
_MOST_WAYS = 1024
"""Ways that a worker remembers; more than models have kinds of tensors."""


class Block(NamedTuple):
    """Elements `[start, start + numel)` of a content."""

    content: Content
    start: int
    numel: int
    is_whole: bool = False
    """Whether it is known to be all of the content."""

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return self.numel * ITEM_SIZES[self.content.dtype]


def blocks_of(content: Content, limit: int) -> list[Block]:
    """Divide a content into blocks of at most `limit` bytes, in the order of its memory.

    Blocks end where the largest step of a copy ends that fits, so that matrices are not torn in the middle of a row.
    """
    numel = content.numel
    room = max(1, limit // ITEM_SIZES[content.dtype])
    if numel <= room:
        return [Block(content, 0, numel, True)] if numel else []
    steps = {loop.left for copy in content.copies for loop in copy.pair.loops if loop.left <= room}
    step = max(steps, default=1)
    room = room // step * step
    return [Block(content, start, min(room, numel - start)) for start in range(0, numel, room)]


class _Step(NamedTuple):
    """Elements of a block that one walk fills."""

    number: int | None
    """Of the source among the content's; None for zeros."""
    target: Bits
    """Where they go, in a worker's buffer."""
    offset: int
    """Where the source's begin."""
    strides: tuple[int, ...]
    """Of the source's."""


class _Way(NamedTuple):
    """How the elements of a block come together, whatever they are."""

    numbers: tuple[int, ...]
    """The sources that are read."""
    steps: tuple[_Step, ...]
    runs: tuple[tuple[int, int, int], ...] | None
    """Source, first element and number of elements of all runs, in order; None where they are not long enough."""


class Gatherer:
    """Finds or gathers the bytes of blocks, one after the other; each worker has its own.

    What must be done is worked out once for all the tensors that are filled alike: experts, and layers of one kind.
    """

    def __init__(self, buffer: Bits, open_source: Callable[[Name], SourceTensor], least_run: int = _LEAST_RUN) -> None:
        """Fill a buffer.

        Args:
            buffer: Bytes, as many as any block has at least.
            open_source: Gives a source tensor by its name.
            least_run: Bytes from which on a run is taken from its source.
        """
        self._buffer, self._open_source, self._least_run = buffer, open_source, least_run
        self._ways: dict[tuple[int, str], tuple[Sequence[Copy], _Way]] = {}
        """For whole contents, by the identity of their copies, which are kept for it."""

    def bytes_of(self, block: Block) -> Iterator[Bits]:
        """The bytes of a block, as few at a time that what is computed for them stays in the processor's cache.

        Yields:
            Bytes that together are the block's, in order, each to be used before the next: those of the sources
            themselves where they lie there in long runs, so that nothing but their reader moves them, else a view of
            the buffer.
        """
        content = block.content
        way = self._way(block)
        opened = {number: self._open_source(content.sources[number]) for number in way.numbers}
        if way.runs is None or any(map(is_computed, opened.values())):
            yield self._gathered(block, way, opened)
            return
        room = _LONGEST_RUN // ITEM_SIZES[content.dtype]
        for number, offset, extent in way.runs:
            source = opened[number]
            for start in range(0, extent, room):
                run = source.region(offset + start, (min(room, extent - start),), (1,))
                if source.dtype != content.dtype:
                    target = PlainTensor(self._buffer, content.dtype).region(0, run.shape, (1,))
                    cast(target, content.dtype, run, source.dtype)
                    run = target
                yield np.ascontiguousarray(run).view(np.uint8)

    def _way(self, block: Block) -> _Way:
        content = block.content
        if not block.is_whole:
            return self._found(block)
        key = id(content.copies), content.dtype
        known = self._ways.get(key)
        if known is None:
            if len(self._ways) >= _MOST_WAYS:
                self._ways.clear()
            known = self._ways[key] = content.copies, self._found(block)
        return known[1]

    def _found(self, block: Block) -> _Way:
        """Work out what fills a block."""
        dtype = block.content.dtype
        elements = PlainTensor(self._buffer, dtype)
        least = min(block.numel, self._least_run // ITEM_SIZES[dtype])
        numbers: dict[int, None] = {}
        steps: list[_Step] = []
        runs: list[list[tuple[int, int, int, int]] | None] = []
        for number, whole in block.content.copies:
            for walk in clip(whole, block.start, block.start + block.numel):
                extents, lefts, rights = zip(*walk.loops, strict=True) if walk.loops else ((), (), ())
                steps.append(_Step(number, elements.region(walk.left, extents, lefts), walk.right, rights))
                if number is not None:
                    numbers[number] = None
                runs.append(None if number is None else _runs_of(number, walk, least))
        long = [part for part in runs if part is not None]
        ordered = tuple(run[1:] for run in sorted(chain.from_iterable(long))) if len(long) == len(runs) else None
        return _Way(tuple(numbers), tuple(steps), ordered)

    def _gathered(self, block: Block, way: _Way, opened: Mapping[int, SourceTensor]) -> Bits:
        """Put a block's elements where there is room for them; returns their bytes."""
        dtype = block.content.dtype
        for number, target, offset, strides in way.steps:
            if number is None:
                target.fill(0)
                continue
            source = opened[number]
            if is_computed(source):
                source.write(target, dtype, offset, strides, move)
            else:
                move(target, dtype, source.region(offset, target.shape, strides), source.dtype)
        return self._buffer[: block.nbytes]


def _runs_of(number: int, walk: Pair, least: int) -> list[tuple[int, int, int, int]] | None:
    """The runs of a walk as (first element of the target, source, first element of the source, elements).

    Returns:
        None where they have fewer than `least` elements.
    """
    *outer, inner = walk.loops or (Loop(1, 1, 1),)
    if inner.left != 1 or inner.right != 1 or inner.extent < least:
        return None
    runs = []
    for at in product(*(range(loop.extent) for loop in outer)):
        left = sum(index * loop.left for index, loop in zip(at, outer, strict=True))
        right = sum(index * loop.right for index, loop in zip(at, outer, strict=True))
        runs.append((walk.left + left, number, walk.right + right, inner.extent))
    return runs


def move(target: Bits, dtype: str, source: Bits, from_dtype: str) -> None:
    """Copy elements to others of the same shape, as bits where the dtype stays; see `mscvt.tensors.sources.Move`."""
    if dtype == from_dtype:
        copy_strided(target, source)
    else:
        cast(target, dtype, source, from_dtype)
