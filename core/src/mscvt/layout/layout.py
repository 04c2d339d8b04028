"""Layouts: a rule with a model's sizes. Both sides are of one type, and either can be walked from the other.

A `Side` is a tensor, or one tensor for each index of the axes that its name holds: runs of rows (`Segment`) with named
axes in memory order. Elements on two sides are the same where the same indices of the same axes stand. What a rank
holds of a side is a `Share`; its pieces are walks (`mscvt.layout.pairs.Pair`) through the share and the other side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from itertools import product
from math import prod
from operator import sub
from typing import NamedTuple

from mscvt.errors import MscvtError
from mscvt.layout.notation import evaluate, parse
from mscvt.layout.pairs import Loop, Pair, clip, pair
from mscvt.layout.rules import PADDING, Rule, check_rule, fields_in
from mscvt.records import dataclass


class Run(NamedTuple):
    """A range of an axis."""

    axis: str
    start: int
    extent: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of rows with axes of its own."""

    groups: tuple[tuple[Run, ...], ...]
    """The dimensions, each a group of axes; all of them in memory order."""
    held: tuple[Run, ...]
    """Axes that are not in memory, because the tensor's name holds them."""

    @property
    def runs(self) -> tuple[Run, ...]:
        """The axes in memory order."""
        return tuple(run for group in self.groups for run in group)

    @property
    def numel(self) -> int:
        """Elements of the rows."""
        return prod(run.extent for run in self.runs)

    @property
    def axes(self) -> frozenset[str]:
        """All axes, also those of the name."""
        return frozenset(run.axis for run in (*self.runs, *self.held))


@dataclass(frozen=True, slots=True)
class Side:
    """A tensor, or one for each index of the axes that its name holds."""

    name: str
    """Whose it is, for errors: a key or a role."""
    segments: tuple[Segment, ...]
    held: tuple[str, ...] = ()
    """The axes that its name holds, in order."""
    dimensions: tuple[tuple[str, ...], ...] | None = None
    """The axes of each dimension, where the shape does not follow the memory order."""
    is_padding: bool = False
    shape: tuple[int, ...] = field(init=False, repr=False)
    """The tensor's shape."""
    indices: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)
    """Of each of its tensors, the index of every axis that its name holds; one that is empty where it holds none."""

    def __post_init__(self) -> None:
        """Work out what is asked for once for each layer and expert."""
        if self.dimensions is not None:
            sizes = {run.axis: run.extent for run in self.segments[0].runs}
            shape = tuple(prod(sizes[axis] for axis in group) for group in self.dimensions)
        else:
            shapes = [tuple(prod(run.extent for run in group) for group in segment.groups) for segment in self.segments]
            shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        object.__setattr__(self, "shape", shape)
        held = {run.axis: run for run in self.segments[0].held} if self.held else {}
        ranges = [range(held[axis].start, held[axis].start + held[axis].extent) for axis in self.held]
        object.__setattr__(self, "indices", tuple(product(*ranges)))

    @property
    def numel(self) -> int:
        """The tensor's elements."""
        return sum(segment.numel for segment in self.segments)


class Piece(NamedTuple):
    """Where elements of a share lie on the other side."""

    source: int
    """Which of the other side's tensors it is."""
    held: tuple[int, ...]
    """The index of each axis that the other one's name holds."""
    pair: Pair
    """Left is the share, right the other tensor."""


@dataclass(frozen=True, slots=True)
class Share:
    """What the ranks at one place in the cut dimensions hold of a side."""

    index: tuple[int, ...]
    """The place in each of the layout's `dimensions`."""
    numbers: tuple[int, ...]
    """The index of each axis that its name holds, counted inside of the rank."""
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Layout:
    """The two sides of a rule. On the left one tensor of the training stack, on the right what it is made of."""

    left: tuple[Side, ...]
    right: tuple[Side, ...]
    cuts: Mapping[str, str]
    """Axis of the left, or leading axes together -> parallel dimension."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The parallel dimensions that tell one rank's share from another's."""
        return tuple(sorted(set(self.cuts.values())))

    def inverse(self) -> Layout:
        """The same layout seen from the other side, uncut."""
        return Layout(self.right, self.left, {})

    def uneven(self, counts: Mapping[str, int]) -> Iterator[tuple[str, int, str, int]]:
        """Yield (axis, size, dimension, count) for every cut axis that does not divide evenly."""
        for side in self.left:
            sizes = [{run.axis: run.extent for run in (*s.runs, *s.held)} for s in side.segments]
            for cut, dimension in self.cuts.items():
                found = [side.shape[0]] if " " in cut else [one[cut] for one in sizes if cut in one]
                yield from ((cut, size, dimension, counts[dimension]) for size in found if size % counts[dimension])

    def shares(self, counts: Mapping[str, int], indices: Iterable[tuple[int, ...]]) -> Iterator[Share]:
        """What the ranks at these places in `dimensions` hold of the left; `counts` is how many ways each one cuts."""
        side = self.left[0]
        for index in indices:
            place = dict(zip(self.dimensions, index, strict=True))
            local = self._local(side, counts, place)
            for at in local.indices:
                numbers = tuple(map(sub, at, local.indices[0]))
                pieces, shape = self._pieces(local, dict(zip(side.held, at, strict=True))), local.shape
                if rows := [cut for cut in self.cuts if " " in cut]:
                    pieces, shape = self._cut_rows(pieces, shape, counts[self.cuts[rows[0]]], place[self.cuts[rows[0]]])
                yield Share(index, numbers, shape, pieces)

    def _local(self, side: Side, counts: Mapping[str, int], place: Mapping[str, int]) -> Side:
        """What one rank holds of a side, its axes numbered as in the whole."""

        def cut(run: Run) -> Run:
            dimension = self.cuts.get(run.axis)
            if dimension is None:
                return run
            share = run.extent // counts[dimension]
            return Run(run.axis, run.start + place[dimension] * share, share)

        return replace(
            side,
            segments=tuple(
                Segment(tuple(tuple(map(cut, group)) for group in s.groups), tuple(map(cut, s.held)))
                for s in side.segments
            ),
        )

    @staticmethod
    def _cut_rows(
        pieces: Sequence[Piece], shape: tuple[int, ...], count: int, index: int
    ) -> tuple[tuple[Piece, ...], tuple[int, ...]]:
        """Cut the first dimension into equal runs of rows, wherever that divides its axes."""
        rows = shape[0] // count
        numel = rows * prod(shape[1:])
        clipped = tuple(
            piece._replace(pair=walk)
            for piece in pieces
            for walk in clip(piece.pair, index * numel, (index + 1) * numel)
        )
        return clipped, (rows, *shape[1:])

    def _pieces(self, ours: Side, at: Mapping[str, int]) -> tuple[Piece, ...]:
        """The pieces of a tensor on the left, whose name's axes are `at`."""
        found: list[Piece] = []
        base = 0
        for segment in ours.segments:
            left = {run.axis: (run.start, run.extent, stride) for run, stride in _strides(segment)}
            left |= {axis: (index, 1, 0) for axis, index in at.items()}
            for number, theirs in enumerate(self.right):
                found += _meet(number, theirs, segment, left, base)
            base += segment.numel
        return tuple(found)


def _meet(
    number: int, theirs: Side, segment: Segment, left: Mapping[str, tuple[int, int, int]], base: int
) -> Iterator[Piece]:
    """Where the other side's tensors hold elements of a run of rows; `left` is start, extent and stride by axis."""
    their_base = 0
    for other in theirs.segments:
        if other.axes == segment.axes:
            right = {run.axis: (run.start, run.extent, stride) for run, stride in _strides(other)}
            right |= {run.axis: (run.start, run.extent, 0) for run in other.held}
            low = {axis: max(left[axis][0], right[axis][0]) for axis in left}
            high = {axis: min(sum(left[axis][:2]), sum(right[axis][:2])) for axis in left}
            if all(low[axis] < high[axis] for axis in left):
                for at in product(*(range(low[axis], high[axis]) for axis in theirs.held)):
                    pinned = dict(zip(theirs.held, at, strict=True))
                    lows = {**low, **pinned}
                    walk = pair(
                        base + sum((lows[axis] - start) * stride for axis, (start, _, stride) in left.items()),
                        their_base + sum((lows[axis] - start) * stride for axis, (start, _, stride) in right.items()),
                        [
                            Loop(high[axis] - low[axis], stride, right[axis][2])
                            for axis, (_, _, stride) in left.items()
                            if axis not in pinned
                        ],
                    )
                    yield Piece(number, at, walk)
        their_base += other.numel


def _strides(segment: Segment) -> list[tuple[Run, int]]:
    """The axes in memory, each with the elements from one index to the next."""
    found, step = [], 1
    for run in reversed(segment.runs):
        found.append((run, step))
        step *= run.extent
    return found[::-1]


def resolve(rule: Rule, sizes: Mapping[str, int], held: Sequence[frozenset[str]]) -> Layout:
    """Put sizes into a rule.

    Args:
        rule: The rule.
        sizes: The size of each axis, and of what its parts speak of.
        held: For each source of the rule, the axes that its name holds.

    Raises:
        MscvtError: Where the rule contradicts itself, or speaks of a size that the model does not have.
    """
    check_rule(rule)
    try:
        left = _side(rule.key, rule.axes, sizes, fields_in(rule.key), rule.shape)
        right = tuple(
            _side(source.role, source.axes, sizes, axes, "")
            for source, axes in zip(rule.sources, held, strict=True)
            if not (source.role == PADDING and _is_empty(source.axes, sizes))
        )
    except MscvtError as error:
        raise MscvtError(f"rule {rule.key!r} {error.message}", hint=error.hint) from None
    return Layout((left,), right, rule.cuts)


def _side(name: str, pattern: str, sizes: Mapping[str, int], held: frozenset[str], shape: str) -> Side:
    segments = []
    for groups in parse(pattern):
        runs = [[_run(span.axis, span.start, span.stop, sizes, pattern) for span in group] for group in groups]
        segments.append(
            Segment(
                tuple(
                    tuple(run for run in group if run.axis not in held)
                    for group in runs
                    if not group or any(run.axis not in held for run in group)
                ),
                tuple(run for group in runs for run in group if run.axis in held),
            )
        )
    widths = {tuple(prod(run.extent for run in group) for group in segment.groups[1:]) for segment in segments}
    if len(widths) > 1:
        raise MscvtError(
            f"stacks rows of unequal widths in {pattern!r}: {', '.join(map(str, map(list, sorted(widths))))}"
        )
    order = [run.axis for run in segments[0].held]
    dimensions = tuple(tuple(span.axis for span in group) for group in parse(shape)[0]) if shape else None
    return Side(name, tuple(segments), tuple(order), dimensions, name == PADDING)


def _run(axis: str, start: str, stop: str, sizes: Mapping[str, int], pattern: str) -> Run:
    size = evaluate(axis, sizes)
    first, end = evaluate(start, sizes), evaluate(stop, sizes) if stop else size
    if not 0 <= first <= end <= size:
        raise MscvtError(f"takes {axis}[{first}:{end}] in {pattern!r}, and {axis} has the size {size}")
    return Run(axis, first, end - first)


def _is_empty(pattern: str, sizes: Mapping[str, int]) -> bool:
    return any(
        _run(span.axis, span.start, span.stop, sizes, pattern).extent == 0
        for groups in parse(pattern)
        for group in groups
        for span in group
    )
