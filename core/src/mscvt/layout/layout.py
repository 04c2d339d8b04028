"""Layouts: where the tensors of one vocabulary lie in a tensor of the other.

A Megatron tensor is described by *named axes in memory order* (`(group slot channel) hidden`), by the
axes that each parallel dimension cuts, and by its *parts*: for every Hugging Face tensor in it, the
range it takes on those axes and the order of the axes in its own memory. From a layout and a rank
follow *pieces*: pairs of boxes, one on each side, that hold the same elements. Swapping the two sides
of a piece gives the way back; nothing in this module knows a direction, a file or a family.

Three types because there are three questions: `Layout` says where things lie in the whole tensor,
`Box` what a region of one tensor in memory is, `Piece` which two boxes are the same elements.
All sizes, starts and offsets count elements, never bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from mscvt.errors import MscvtError

Groups = tuple[tuple[str, ...], ...]
_TOKEN = re.compile(r"\(([^()]*)\)|(\w+)")
_WORD = re.compile(r"\w+")


def parse_axes(pattern: str) -> Groups:
    """Read a pattern like `(group slot channel) hidden`: one group of axes per dimension.

    >>> parse_axes("(group slot channel) hidden")
    (('group', 'slot', 'channel'), ('hidden',))

    Raises:
        MscvtError: Where the pattern is empty, repeats an axis or holds anything but words and groups.
    """
    groups = tuple(tuple((match[1] if match[2] is None else match[2]).split()) for match in _TOKEN.finditer(pattern))
    axes = [axis for group in groups for axis in group]
    words = all(_WORD.fullmatch(axis) for axis in axes)
    if _TOKEN.sub("", pattern).strip() or not axes or not words or len(set(axes)) != len(axes):
        raise MscvtError(f"layout pattern {pattern!r} is not a list of distinct axes and (groups)")
    return groups


@dataclass(frozen=True, slots=True)
class Run:
    """A range of one axis of a tensor in memory."""

    axis: str
    size: int
    """The whole axis, in this tensor."""
    start: int
    extent: int


@dataclass(frozen=True, slots=True)
class Box:
    """A strided region of one tensor: one run per axis, slowest axis first."""

    runs: tuple[Run, ...]
    base: int = 0
    """Elements that lie before the axes begin (segments stacked above)."""

    @property
    def extents(self) -> tuple[int, ...]:
        """The region's shape, by axis."""
        return tuple(run.extent for run in self.runs)

    @property
    def numel(self) -> int:
        """Elements of the region."""
        return prod(self.extents)

    @property
    def strides(self) -> dict[str, int]:
        """Elements from one index of an axis to the next, by axis."""
        strides, step = {}, 1
        for run in reversed(self.runs):
            strides[run.axis] = step
            step *= run.size
        return strides

    @property
    def offset(self) -> int:
        """Where the region's first element lies in the tensor."""
        strides = self.strides
        return self.base + sum(run.start * strides[run.axis] for run in self.runs)


@dataclass(frozen=True, slots=True)
class Piece:
    """The same elements on both sides; `huggingface` is None for padding that has no source."""

    part: int
    megatron: Box
    huggingface: Box | None


@dataclass(frozen=True, slots=True)
class PlacedPart:
    """One Hugging Face tensor in a layout: `groups` is its own shape and memory order."""

    groups: Groups
    at: Mapping[str, tuple[int, int]]
    """Axis of the Megatron tensor -> (start, extent) that this part takes; absent axes are taken whole."""
    within: Mapping[str, tuple[int, int]]
    """Axis -> (start, size) in the Hugging Face tensor, where that has more of the axis than is taken."""
    is_padding: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows of a Megatron tensor with axes and parts of their own; `axes` is the memory order."""

    axes: tuple[tuple[str, int], ...]
    shape: Groups
    parts: tuple[int, ...]
    """Which of the layout's parts lie here."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A whole Megatron tensor: segments stacked along the first dimension, and what cuts which axis."""

    segments: tuple[Segment, ...]
    parts: tuple[PlacedPart, ...]
    cuts: Mapping[str, str]
    """Axis -> the parallel dimension that cuts it."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The parallel dimensions that tell one rank's tensor from another's."""
        return tuple(sorted(set(self.cuts.values())))

    def uneven(self, counts: Mapping[str, int]) -> Iterator[tuple[str, int, str, int]]:
        """Yield (axis, size, dimension, count) for every cut axis that does not divide evenly."""
        for segment in self.segments:
            for axis, size in segment.axes:
                dimension = self.cuts.get(axis)
                if dimension is not None and size % counts[dimension]:
                    yield axis, size, dimension, counts[dimension]

    def shape(self, counts: Mapping[str, int]) -> tuple[int, ...]:
        """The shape of one rank's tensor, where `counts` says how many ways each dimension cuts."""
        shapes = []
        for segment in self.segments:
            sizes = {
                axis: size // counts[self.cuts[axis]] if axis in self.cuts else size for axis, size in segment.axes
            }
            shapes.append(tuple(prod(sizes[axis] for axis in group) for group in segment.shape))
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def part_shape(self, part: int) -> tuple[int, ...]:
        """The shape that a part's Hugging Face tensor must have."""
        placed = self.parts[part]
        sizes = dict(next(segment.axes for segment in self.segments if part in segment.parts))
        return tuple(
            prod(placed.within.get(axis, (0, placed.at.get(axis, (0, sizes[axis]))[1]))[1] for axis in group)
            for group in placed.groups
        )

    def pieces(self, counts: Mapping[str, int], index: Mapping[str, int]) -> list[Piece]:
        """All pieces of the tensor of the rank whose place in each parallel dimension is `index`."""
        pieces, base = [], 0
        for segment in self.segments:
            owned = {}
            for axis, size in segment.axes:
                if axis in self.cuts:
                    share = size // counts[self.cuts[axis]]
                    owned[axis] = (index[self.cuts[axis]] * share, share)
                else:
                    owned[axis] = (0, size)
            for part in segment.parts:
                piece = _piece(part, self.parts[part], segment, owned, base)
                if piece is not None:
                    pieces.append(piece)
            base += prod(share for _, share in owned.values())
        return pieces


def _piece(
    number: int, part: PlacedPart, segment: Segment, owned: Mapping[str, tuple[int, int]], base: int
) -> Piece | None:
    """The overlap of a part with what a rank owns of a segment, or None where they don't meet."""
    megatron, theirs = [], {}
    for axis, size in segment.axes:
        first, share = owned[axis]
        start, extent = part.at.get(axis, (0, size))
        low, high = max(start, first), min(start + extent, first + share)
        if low >= high:
            return None
        megatron.append(Run(axis, share, low - first, high - low))
        inner_start, inner_size = part.within.get(axis, (0, extent))
        theirs[axis] = Run(axis, inner_size, inner_start + low - start, high - low)
    box = Box(tuple(megatron), base)
    if part.is_padding:
        return Piece(number, box, None)
    return Piece(number, box, Box(tuple(theirs[axis] for group in part.groups for axis in group)))


def uncovered(sizes: Sequence[int], boxes: Sequence[Box]) -> str | None:
    """Prove that boxes over the same axes cover them exactly once.

    The axes are divided at every edge of a box; each cell of that grid must lie in exactly one box.

    Returns:
        None where the proof holds, else what is wrong.
    """
    if any(tuple(run.size for run in box.runs) != tuple(sizes) for box in boxes):
        return "its parts do not agree on the axes of the tensor"
    if 0 in sizes:
        return None
    edges = []
    for dim, size in enumerate(sizes):
        marks = {0, size}
        for box in boxes:
            run = box.runs[dim]
            marks.update((run.start, run.start + run.extent))
        edges.append({mark: i for i, mark in enumerate(sorted(marks))})
    cells: dict[tuple[int, ...], int] = {}
    for box in boxes:
        ranges = [range(edges[dim][run.start], edges[dim][run.start + run.extent]) for dim, run in enumerate(box.runs)]
        for cell in product(*ranges):
            cells[cell] = cells.get(cell, 0) + 1
    total = prod(len(marks) - 1 for marks in edges)
    if any(count > 1 for count in cells.values()):
        return "some of its elements come from more than one place"
    if len(cells) != total:
        return "some of its elements come from nowhere"
    return None
