"""A rule's tensors as drawings: which part of each Hugging Face tensor goes to which rank, and where it lies there.

All numbers are elements along the two last axes of a tensor; a vector is a column.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mscvt.description.description import Description, Parameter
from mscvt.layout.rules import EXPERT
from mscvt.plan.shares import Cut, Shares, filled
from mscvt.records import dataclass
from mscvt.views.ranks import cut_text, ranks_text
from mscvt.views.regions import Span, region_text, spans_of

_MOST_SHARES = 8
"""So many ranks' tensors are drawn, and as many runs of each."""
_MOST_RUNS = 64


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A part of a tensor."""

    row: int
    column: int
    rows: int
    columns: int
    share: int
    """Whose it is, of the shares that are drawn."""
    source: int
    """Which of the Hugging Face tensors it is of."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One tensor."""

    name: str
    about: str
    """What is to be read beside it."""
    shape: tuple[int, ...]
    rows: int
    columns: int
    parts: tuple[Rectangle, ...]
    """Empty where it doesn't consist of rectangles."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A rule under a topology."""

    roles: tuple[str, ...]
    key: str
    cut: str
    sources: tuple[Drawn, ...]
    shards: tuple[Drawn, ...]
    more: int
    """Shares that are not drawn."""


def drawings_of(description: Description, tensor: str | None = None) -> Iterator[Drawing]:
    """A drawing of each layout that is cut, or takes several tensors; of those that hold a tensor where one is given.

    Args:
        description: The model.
        tensor: The name of a Hugging Face tensor.
    """
    shares, seen = Shares(description), set[object]()
    for parameter in description.parameters:
        layout = parameter.layout
        is_plain = not layout.cuts and len(layout.right) == 1
        if layout in seen or (is_plain and tensor is None):
            continue
        cuts = shares.of(layout)
        held = _held_by(parameter, cuts, tensor)
        if tensor is not None and held is None:
            continue
        seen.add(layout)
        yield _drawing(description, shares, parameter, cuts, held)


_Held = dict[int, tuple[int, ...]]
"""Tensor of the right side -> the indices in its name of the one that is drawn."""


def _held_by(parameter: Parameter, cuts: Sequence[Cut], tensor: str | None) -> _Held | None:
    """Which tensors are drawn of those that names with axes stand for: the first ones, or the one that is asked for."""
    found: _Held = {}
    is_there = tensor is None
    for cut in cuts:
        for piece in cut.share.pieces:
            side = parameter.layout.right[piece.source]
            if side.is_padding:
                continue
            found.setdefault(piece.source, piece.held)
            if tensor is not None and filled(parameter.names[piece.source], side.held, piece.held) == tensor:
                found = {**dict.fromkeys(found, piece.held), piece.source: piece.held}
                is_there = True
                tensor = None
    return found if is_there else None


def _drawing(
    description: Description, shares: Shares, parameter: Parameter, cuts: Sequence[Cut], held: _Held | None
) -> Drawing:
    layout, grid = parameter.layout, description.topology.grid
    held = held or {}
    with_them = [
        cut for cut in cuts if any(held.get(piece.source) == piece.held for piece in cut.share.pieces) or not held
    ]
    drawn = with_them[:_MOST_SHARES]
    parts: dict[int, list[Rectangle]] = {source: [] for source in held}
    about: dict[int, list[str]] = {source: [] for source in held}
    shards = []
    for number, cut in enumerate(drawn):
        inside: list[Rectangle] = []
        holders = shares.holders(layout, parameter.stage)[cut.share.index]
        words = ", ".join(ranks_text(holders, grid, stages=False))
        for piece in cut.share.pieces:
            source = piece.source
            if held.get(source) != piece.held:
                continue
            shape = layout.right[source].shape
            right = [(extent, step) for extent, _, step in piece.pair.loops]
            parts[source] += _rectangles(spans_of(shape, piece.pair.right, right), number, source)
            about[source].append(f"{region_text(shape, piece.pair.right, right) or 'all'} on {words}")
            if layout.left[0].dimensions is None:
                left = [(extent, step) for extent, step, _ in piece.pair.loops]
                spans = spans_of(cut.share.shape, piece.pair.left, left)
                inside += _rectangles(spans, number, source)
        size = _size(cut.share.shape)
        key = filled(parameter.key, layout.left[0].held, cut.share.numbers)
        shards.append(Drawn(key, words, cut.share.shape, *size, tuple(inside)))
    sources = tuple(
        Drawn(
            filled(parameter.names[source], layout.right[source].held, at),
            "; ".join(about[source]),
            layout.right[source].shape,
            *_size(layout.right[source].shape),
            tuple(parts[source]),
        )
        for source, at in sorted(held.items())
    )
    by = cut_text(layout.cuts)
    if EXPERT in layout.dimensions:
        by += "; one expert is drawn"
    roles = tuple(side.name for side in layout.right if not side.is_padding)
    return Drawing(roles, parameter.key, by, sources, tuple(shards), len(with_them) - len(drawn))


def _size(shape: Sequence[int]) -> tuple[int, int]:
    return (shape[-2], shape[-1]) if len(shape) > 1 else (shape[0] if shape else 1, 1)


def _rectangles(spans: Sequence[Span] | None, share: int, source: int) -> Iterator[Rectangle]:
    """The rectangles that a walk takes; none where it takes more runs than can be drawn."""
    if not spans:
        return
    down, across = (spans[-2], spans[-1]) if len(spans) > 1 else (spans[0], Span(0, 1))
    if down.count * across.count <= _MOST_RUNS:
        for row, row_end in down.runs:
            for column, column_end in across.runs:
                yield Rectangle(row, column, row_end - row, column_end - column, share, source)
    else:
        yield Rectangle(
            down.start, across.start, down.runs[-1][1] - down.start, across.runs[-1][1] - across.start, share, source
        )
