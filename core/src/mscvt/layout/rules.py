"""Rules: how the roles of a layer become Megatron tensors, in a notation that names sizes.

A dialect is a table of rules. A rule is written with axis names only; `resolve` puts a model's sizes in
and gives a `Layout`. Sizes are names of axes or of other sizes (`queries`), or plain numbers.

    Rule("self_attention.linear_qkv.weight", "(group slot channel) hidden", cuts={"group": TENSOR}, parts=(
        Part("attention.q", "(group slot channel) hidden", at={"slot": (0, "queries")}),
        Part("attention.k", "(group channel) hidden", at={"slot": ("queries", 1)}),
        Part("attention.v", "(group channel) hidden", at={"slot": ("queries + 1", 1)})))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mscvt.errors import Faults, MscvtError
from mscvt.layout.layout import Layout, PlacedPart, Segment, parse_axes
from mscvt.parallel.topology import DIMENSION_FLAGS

Size = int | str
Sizes = Mapping[str, int]

PADDING = "padding"
"""The role of zeros that fill up a tensor and have no source."""


@dataclass(frozen=True, slots=True)
class Part:
    """One Hugging Face tensor (or, with `each`, one per index of an axis) in a rule.

    Attributes:
        role: Whose tensor it is.
        axes: The axes in the Hugging Face tensor's own order; they give its shape too.
        at: Axis -> (start, extent) on the Megatron tensor's axis; absent axes are taken whole.
        within: Axis -> (start, size) in the Hugging Face tensor, where that axis is longer there.
        each: An axis with one tensor per index, whose number stands in the name as `{expert}`.
    """

    role: str
    axes: str
    at: Mapping[str, tuple[Size, Size]] = field(default_factory=dict)
    within: Mapping[str, tuple[Size, Size]] = field(default_factory=dict)
    each: str | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """A run of rows with axes of its own, where a tensor is stacked from unequal pieces."""

    axes: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One Megatron tensor: its key, its axes in memory order, its parts and its cuts.

    Attributes:
        key: The key after the layer's prefix. `{expert}` in it means a tensor for each expert, which
            takes the expert's number inside its rank.
        axes: The axes in memory order; groups are the tensor's dimensions unless `shape` says otherwise.
        parts: What lies in it.
        cuts: Axis -> parallel dimension.
        rows: In place of axes and parts: unequal runs of rows, from the top.
        shape: The dimensions, where the tensor's shape does not follow its memory order.
        beside: Roles that the layer must have too for the rule to hold.
        keeps_dtype: True where `--dtype` must leave the tensor alone.
    """

    key: str
    axes: str = ""
    parts: tuple[Part, ...] = ()
    cuts: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[Rows, ...] = ()
    shape: str = ""
    beside: frozenset[str] = frozenset()
    keeps_dtype: bool = False

    @property
    def roles(self) -> frozenset[str]:
        """The roles that the rule needs."""
        runs = self.rows or (Rows(self.axes, self.parts),)
        return frozenset(part.role for run in runs for part in run.parts) - {PADDING}


def whole(key: str, role: str, axes: str, *, cuts: Mapping[str, str] | None = None, keeps_dtype: bool = False) -> Rule:
    """A Megatron tensor that is one Hugging Face tensor, cut or not."""
    return Rule(key, axes, (Part(role, axes),), cuts or {}, keeps_dtype=keeps_dtype)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A rule with sizes: the layout, and for each of its parts the role and the index along `each`."""

    layout: Layout
    sources: tuple[tuple[str, int | None], ...]


def resolve(rule: Rule, sizes: Sizes) -> Resolved:
    """Put sizes into a rule.

    Raises:
        MscvtError: Where the rule speaks of a size that the model does not have, or of axes that are not its own.
    """
    _check(rule, sizes)
    segments: list[Segment] = []
    placed: list[PlacedPart] = []
    sources: list[tuple[str, int | None]] = []
    for run in rule.rows or (Rows(rule.axes, rule.parts),):
        groups = parse_axes(run.axes)
        axes = tuple((axis, _size(axis, sizes, rule)) for group in groups for axis in group)
        first = len(placed)
        for part in run.parts:
            at = {axis: _span(span, sizes, rule) for axis, span in part.at.items()}
            within = {axis: _span(span, sizes, rule) for axis, span in part.within.items()}
            if part.role == PADDING and any(extent == 0 for _, extent in at.values()):
                continue
            if part.each is None:
                indices: Sequence[int | None] = (None,)
            else:
                indices = range(_size(part.each, sizes, rule))
            for index in indices:
                pinned = at if index is None else {**at, str(part.each): (index, 1)}
                placed.append(PlacedPart(parse_axes(part.axes), pinned, within, part.role == PADDING))
                sources.append((part.role, index))
        shape = parse_axes(rule.shape) if rule.shape else groups
        segments.append(Segment(axes, shape, tuple(range(first, len(placed)))))
    return Resolved(Layout(tuple(segments), tuple(placed), rule.cuts), tuple(sources))


def _check(rule: Rule, sizes: Sizes) -> None:
    """Refuse axes that a rule does not have: a misspelt cut would replicate what should be divided."""
    faults = Faults()
    known: set[str] = set()
    for run in rule.rows or (Rows(rule.axes, rule.parts),):
        axes = _axes(run.axes)
        known |= axes
        if rule.shape and _axes(rule.shape) != axes:
            faults.add(f"shape {rule.shape!r} does not have the axes of {run.axes!r}")
        for part in run.parts:
            own, each = _axes(part.axes), {part.each} if part.each else set()
            taken = {axis: part.at.get(axis, (0, axis))[1] for axis in axes - own - each}
            if unknown := sorted((own | each | part.at.keys() | part.within.keys()) - axes):
                faults.add(f"part {part.role} speaks of {', '.join(unknown)}, which {run.axes!r} does not have")
            elif absent := sorted(axis for axis, extent in taken.items() if _size(extent, sizes, rule) != 1):
                faults.add(f"part {part.role} takes more than one index of {', '.join(absent)} and has no such axis")
    if unknown := sorted(rule.cuts.keys() - known):
        faults.add(f"cuts {', '.join(unknown)}, which it does not have")
    if unknown := sorted(set(rule.cuts.values()) - DIMENSION_FLAGS.keys()):
        faults.add(f"cuts by {', '.join(unknown)}, expected {', '.join(sorted(DIMENSION_FLAGS))}")
    faults.raise_if_any(f"rule {rule.key!r} is not well formed")


def _axes(pattern: str) -> set[str]:
    return {axis for group in parse_axes(pattern) for axis in group}


def _span(span: tuple[Size, Size], sizes: Sizes, rule: Rule) -> tuple[int, int]:
    return _size(span[0], sizes, rule), _size(span[1], sizes, rule)


def _size(size: Size, sizes: Sizes, rule: Rule) -> int:
    """A number, a named size, or a sum of them such as `queries + 1`."""
    if isinstance(size, int):
        return size
    total = 0
    for term in size.split("+"):
        name = term.strip()
        value = int(name) if name.isdigit() else sizes.get(name)
        if not isinstance(value, int):
            raise MscvtError(
                f"rule {rule.key!r} needs the size {name!r}, which the model's configuration doesn't give",
                hint="Add the field to config.json, or to the model type's `fields` in its plugin.",
            )
        total += value
    return total
