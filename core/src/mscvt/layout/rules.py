"""Rules: how the tensors that play a model's roles become the tensors of a training stack, as data.

A dialect is a table of rules, and a family may bring its own. A rule is written with axes alone; with a model's sizes
it becomes a `Layout` (`mscvt.layout.layout.resolve`). Both sides are in the same notation (`mscvt.layout.notation`):

    Rule("self_attention.linear_qkv.weight", "(group slot channel) hidden", (
        Source("attention.q", "(group slot[:queries] channel) hidden"),
        Source("attention.k", "(group slot[queries] channel) hidden"),
        Source("attention.v", "(group slot[queries + 1] channel) hidden"),
    ), cuts={"group": TENSOR})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from string import Formatter

from mscvt.errors import Faults
from mscvt.layout.notation import Groups, axes_of, parse
from mscvt.records import dataclass

TENSOR, EXPERT, EXPERT_TENSOR = "tensor", "expert", "expert_tensor"
"""The parallel dimensions that an axis can be cut by."""
DIMENSIONS = frozenset({TENSOR, EXPERT, EXPERT_TENSOR})

PADDING = "padding"
"""The role of zeros that fill up a tensor and come from nowhere."""


@dataclass(frozen=True, slots=True)
class Source:
    """A Hugging Face tensor in a rule.

    Attributes:
        role: Whose tensor it is. Where its name holds an axis (`{expert}`), it is one tensor for each index of it.
        axes: Its axes in its own memory order, with the axes that its name holds. Elements belong where the same
            indices of the same axes stand on the other side.
    """

    role: str
    axes: str


@dataclass(frozen=True, eq=False, slots=True)
class Rule:
    """One tensor of the training stack: its key, its axes in memory order, what lies in it, and its cuts.

    Attributes:
        key: The key after the layer's prefix. Where it holds an axis (`{expert}`), it is one tensor for each index of
            it, and takes the index inside the rank.
        axes: The axes in memory order, with those that the key holds.
        sources: What lies in it.
        cuts: Axis -> parallel dimension, each rank holding an equal run of the axis. The axes of a leading group
            together (`"group slot channel"`) are cut as plain rows.
        shape: The dimensions, where the tensor's shape does not follow its memory order.
        beside: Roles that the layer must have too for the rule to hold.
        keeps_dtype: True where `--dtype` must leave the tensor alone.
    """

    key: str
    axes: str
    sources: tuple[Source, ...]
    cuts: Mapping[str, str] = field(default_factory=dict)
    shape: str = ""
    beside: frozenset[str] = frozenset()
    keeps_dtype: bool = False

    @property
    def roles(self) -> frozenset[str]:
        """The roles that the rule needs."""
        return frozenset(source.role for source in self.sources) - {PADDING}


def whole(key: str, role: str, axes: str, *, cuts: Mapping[str, str] | None = None, keeps_dtype: bool = False) -> Rule:
    """A tensor that is one Hugging Face tensor, cut or not."""
    return Rule(key, axes, (Source(role, axes),), cuts or {}, keeps_dtype=keeps_dtype)


def fields_in(name: str) -> frozenset[str]:
    """The axes and numbers that a name holds.

    >>> sorted(fields_in("layers.{layer}.experts.{expert}.weight"))
    ['expert', 'layer']

    Raises:
        ValueError: Where its braces don't match.
    """
    return frozenset(field for _, field, _, _ in Formatter().parse(name) if field is not None)


def check_rule(rule: Rule) -> None:
    """Refuse a rule that contradicts itself: a misspelt cut would replicate what should be divided.

    Raises:
        MscvtError: All faults at once; of a layout that is not in the notation, the first.
    """
    faults = Faults()
    axes = axes_of(rule.axes)
    try:
        held = fields_in(rule.key)
    except ValueError as error:
        faults.add(f"its key has a stray brace: {error}")
        held = frozenset()
    if unknown := sorted(held - axes):
        faults.add(f"its key holds {', '.join(unknown)}, which {rule.axes!r} does not have")
    if not rule.sources:
        faults.add("nothing lies in it")
    runs = [_axes(groups) for groups in parse(rule.axes)]
    for source in rule.sources:
        if unknown := sorted(axes_of(source.axes) - axes):
            faults.add(f"{source.role} speaks of {', '.join(unknown)}, which {rule.axes!r} does not have")
            continue
        for groups in parse(source.axes):
            if (own := _axes(groups)) not in runs:
                faults.add(f"{source.role} in {source.axes!r} {_lacking(own, runs, rule.axes)}")
    if rule.shape and axes_of(rule.shape) != axes - held:
        faults.add(f"shape {rule.shape!r} does not have the axes of {rule.axes!r}")
    if rule.shape and len(runs) > 1:
        faults.add(f"shape {rule.shape!r} is for one run of rows, not for {rule.axes!r}")
    if unknown := sorted({axis for cut in rule.cuts for axis in cut.split()} - axes):
        faults.add(f"cuts {', '.join(unknown)}, which it does not have")
    else:
        _check_row_cuts(rule, held, faults)
    for run in runs:
        cuts = {cut: dimension for cut, dimension in rule.cuts.items() if run & frozenset(cut.split())}
        for dimension in sorted(set(cuts.values())):
            twice = sorted(cut for cut, other in cuts.items() if other == dimension)
            if len(twice) > 1:
                faults.add(f"cuts {' and '.join(twice)} of the same rows by {dimension}; some would be on no rank")
    if unknown := sorted(set(rule.cuts.values()) - DIMENSIONS):
        faults.add(f"cuts by {', '.join(unknown)}, expected {', '.join(sorted(DIMENSIONS))}")
    faults.raise_if_any(f"rule {rule.key!r} is not well formed")


def _lacking(own: frozenset[str], runs: Sequence[frozenset[str]], axes: str) -> str:
    """What is wrong with a source whose axes are those of no run of rows."""
    lacking = min((sorted(run - own) for run in runs), key=len)
    if not lacking:
        return f"has axes of more than one run of rows of {axes!r}"
    return (
        f"does not have {', '.join(lacking)} of {axes!r}; "
        f"where it holds one index of an axis, say which, such as {lacking[0]}[0]"
    )


def _check_row_cuts(rule: Rule, held: frozenset[str], faults: Faults) -> None:
    """Axes that are cut together must be the whole first dimension, in memory order."""
    rows = set()
    for groups in parse(rule.axes):
        dimensions = [[span.axis for span in group if span.axis not in held] for group in groups]
        rows.add(" ".join(next(filter(None, dimensions), ())))
    for cut in rule.cuts:
        together = " ".join(cut.split())
        if " " in together and (rule.shape or together not in rows):
            shown = "are not in one piece" if rule.shape else f"are {' or '.join(map(repr, sorted(rows)))}"
            faults.add(f"cuts {together!r} as rows, and its rows {shown}")


def _axes(groups: Groups) -> frozenset[str]:
    return frozenset(span.axis for group in groups for span in group)
