"""Low-rank factors: where A and B lie follows from where the weight lies to which `scale * B @ A` is added.

A weight of a training stack chooses and stacks rows of other weights, chooses columns of them, and may be transposed.
B has the weight's rows, so exactly what is done to them is done to it, and A likewise has its columns; each is stored
as the weight is, with the axis `rank` in the place of what it lacks. A cut axis that a factor lacks leaves it whole.

    linear_qkv         (group slot channel) hidden    A: rank hidden            B: (group slot channel) rank
    experts.weight1    expert hidden half moe_ffn     A: expert hidden rank     B: expert rank half moe_ffn
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from mscvt.layout.layout import Layout, Run, Segment, Side
from mscvt.layout.rules import PADDING
from mscvt.records import dataclass

RANK = "rank"
"""The axis that both factors have and the weight lacks."""


@dataclass(frozen=True, eq=False, slots=True)
class FactorLayouts:
    """The layouts of both factors of a weight."""

    a: Layout
    b: Layout
    a_of: tuple[int | None, ...]
    """For each tensor on the right of the weight, which one on the right of `a` is its A; None for padding. Tensors
    that are stacked by rows have one A, unless each has ranks of its own."""
    b_of: tuple[int | None, ...]
    is_transposed: bool
    """Whether the weight lies in memory by columns: then its merge is A @ B, of what is stored."""


def factor_layouts(
    layout: Layout, left: Run, right: Sequence[Run | None], *, is_spread: bool = False
) -> FactorLayouts | None:
    """The layouts of A and B of a weight.

    Args:
        layout: The weight's.
        left: The ranks that the training stack's factors have, as a run of the axis `RANK`.
        right: The ranks that the factors of each tensor on the right of the weight have, which may be more or fewer;
            None for one that has none. What of `left` no tensor has is padding.
        is_spread: Whether a factor that lacks the axis by which the weight is cut is cut by its first dimension.

    Returns:
        The layouts; None where the weight does not consist of matrices `[out, in]`, and so has no factors.
    """
    sides = [side for side in layout.right if not side.is_padding]
    roles = _roles(layout)
    if not sides or roles is None:
        return None
    batch = next(iter(roles.values())).batch
    is_transposed = {_leads(segment, roles[segment.axes]) for segment in layout.left[0].segments}
    if len(is_transposed) > 1 or None in is_transposed or (batch and len(layout.left[0].segments) > 1):
        return None
    made = []
    for keeps_rows in (False, True):
        dropped = {axes: found.columns if keeps_rows else found.rows for axes, found in roles.items()}
        whole = _factor(layout.left[0], dropped, left)
        if len(whole.segments) > 1 and not keeps_rows:
            return None  # rows of unequal widths would need more than one A
        theirs, of = _right(layout.right, dropped, left, right)
        axes = {axis for segment in whole.segments for axis in segment.axes}
        cuts = {cut: dimension for cut, dimension in layout.cuts.items() if axes.issuperset(cut.split())}
        made.append((Layout((whole,), theirs, cuts), of))
    (a, a_of), (b, b_of) = made
    if is_spread:
        a, b = (_spread(factor, layout) for factor in (a, b))
    return FactorLayouts(a, b, a_of, b_of, is_transposed == {True})


def _spread(factor: Layout, weight: Layout) -> Layout:
    """A factor cut by its first dimension wherever only its weight is cut."""
    lacking = set(weight.cuts.values()) - set(factor.cuts.values())
    leading = " ".join(dict.fromkeys(run.axis for run in factor.left[0].segments[0].groups[0]))
    return replace(factor, cuts={**factor.cuts, leading: min(lacking)}) if lacking else factor


@dataclass(frozen=True, slots=True)
class _Roles:
    """Which axes of a run of rows are a matrix' rows, its columns, and which tell matrices apart."""

    rows: frozenset[str]
    columns: frozenset[str]
    batch: frozenset[str]


def _roles(layout: Layout) -> dict[frozenset[str], _Roles] | None:
    """The roles of the axes of each kind of segment; on the right each tensor is a matrix."""
    found: dict[frozenset[str], _Roles] = {}
    for side in layout.right:
        for segment in side.segments:
            axes = [frozenset(run.axis for run in group) for group in segment.groups]
            if len(axes) != 2:
                return None
            roles = _Roles(axes[-2], axes[-1], segment.axes - axes[-2] - axes[-1])
            if found.setdefault(segment.axes, roles) != roles:
                return None
    if any(segment.axes not in found for segment in layout.left[0].segments):
        return None
    return found


def _leads(segment: Segment, roles: _Roles) -> bool | None:
    """Whether columns stand before rows in memory; None where they don't stand apart, after what tells matrices."""
    order = [
        "batch" if run.axis in roles.batch else "columns" if run.axis in roles.columns else "rows"
        for run in segment.runs
    ]
    kinds = list(dict.fromkeys(order))
    if order != sorted(order, key=kinds.index) or "batch" in kinds[1:]:
        return None
    inner = [kind for kind in kinds if kind != "batch"]
    return inner[:1] == ["columns"] and bool(roles.rows)


def _factor(side: Side, dropped: dict[frozenset[str], frozenset[str]], rank: Run) -> Side:
    """A side with the rank in the place of some of its axes; runs of rows that become the same are one."""
    segments = dict.fromkeys(
        Segment(_replaced(segment.groups, dropped[segment.axes], rank), segment.held) for segment in side.segments
    )
    dimensions = side.dimensions
    if dimensions is not None:
        runs = tuple(tuple(Run(axis, 0, 0) for axis in group) for group in dimensions)
        (axes,) = {segment.axes for segment in side.segments}
        dimensions = tuple(tuple(run.axis for run in group) for group in _replaced(runs, dropped[axes], rank))
    return replace(side, segments=tuple(segments), dimensions=dimensions)


def _replaced(groups: Iterable[tuple[Run, ...]], dropped: frozenset[str], rank: Run) -> tuple[tuple[Run, ...], ...]:
    found: list[tuple[Run, ...]] = []
    is_there = False
    for group in groups:
        kept: list[Run] = []
        for run in group:
            if run.axis not in dropped:
                kept.append(run)
            elif not is_there:
                kept.append(rank)
                is_there = True
        if not group and not dropped and not is_there:  # a dimension of size 1 has no axis to be dropped
            kept.append(rank)
            is_there = True
        if kept or not group:
            found.append(tuple(kept))
    return tuple(found)


def _right(
    sides: Sequence[Side], dropped: dict[frozenset[str], frozenset[str]], left: Run, ranks: Sequence[Run | None]
) -> tuple[tuple[Side, ...], tuple[int | None, ...]]:
    """The distinct factors of the tensors on the right with the padding between them, and which one is each one's."""
    found: list[Side] = []
    places: dict[tuple[Segment, ...], int] = {}
    of: list[int | None] = []
    covered: dict[tuple[Segment, ...], tuple[Side, list[Run]]] = {}
    for side, rank in zip(sides, ranks, strict=True):
        _, runs = covered.setdefault(_factor(side, dropped, Run(RANK, 0, 0)).segments, (side, []))
        if side.is_padding or rank is None:
            of.append(None)
            continue
        factor = _factor(side, dropped, rank)
        if factor.segments not in places:
            places[factor.segments] = len(found)
            found.append(factor)
            runs.append(rank)
        of.append(places[factor.segments])
    for side, runs in covered.values():
        empty = replace(side, name=PADDING, is_padding=True)
        found += [_factor(empty, dropped, gap) for gap in _gaps(left, runs)]
    return tuple(found), tuple(of)


def _gaps(whole: Run, runs: Iterable[Run]) -> Iterator[Run]:
    """The parts of a run that none of the others covers."""
    start, end = whole.start, whole.start + whole.extent
    for run in sorted(runs, key=lambda run: run.start):
        if run.start > start:
            yield Run(whole.axis, start, min(run.start, end) - start)
        start = max(start, run.start + run.extent)
    if start < end:
        yield Run(whole.axis, start, end - start)
