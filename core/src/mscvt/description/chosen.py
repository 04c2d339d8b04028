"""Which rules hold for which roles, and their layouts; each worked out once for all layers that share it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mscvt.dialects.dialect import Rules
from mscvt.errors import MscvtError
from mscvt.layout.layout import Layout, resolve
from mscvt.layout.notation import axes_of
from mscvt.layout.rules import PADDING, Rule, fields_in


def choose_rules(tables: Sequence[Sequence[Rule]], names: Mapping[str, str]) -> list[Rule]:
    """The rules that hold for the roles that are named; a table has only what those before it have not taken."""
    taken: set[str] = set()
    chosen: list[Rule] = []
    for table in tables:
        holding = [
            rule
            for rule in table
            if rule.roles <= names.keys() and not rule.roles & taken and rule.beside <= names.keys()
        ]
        chosen += holding
        taken |= {role for rule in holding for role in rule.roles}
    return chosen


class RuleBook:
    """All rules of a model, and their layouts under its sizes."""

    def __init__(self, rules: Rules, own: Sequence[Rule], sizes: Mapping[str, int]) -> None:
        self.rules = rules
        """The dialect's."""
        self.own = tuple(own)
        """The family's, which are tried first."""
        self.sizes = sizes
        self._layouts: dict[tuple[object, ...], Layout] = {}

    def layout(self, rule: Rule, names: Mapping[str, str], sizes: Mapping[str, int]) -> Layout:
        """The layout of a rule for sources of these names, where `sizes` differ from the model's own.

        Raises:
            MscvtError: Where a name holds what is no axis of the rule, or a size is not there.
        """
        held = tuple(self._held(rule, source.role, source.axes, names) for source in rule.sources)
        key = (rule, held, tuple(sorted(sizes.items())))
        if key not in self._layouts:
            self._layouts[key] = resolve(rule, {**self.sizes, **sizes}, held)
        return self._layouts[key]

    @staticmethod
    def _held(rule: Rule, role: str, axes: str, names: Mapping[str, str]) -> frozenset[str]:
        if role == PADDING:
            return frozenset()
        held = fields_in(names[role]) - {"layer", "mtp"}
        if unknown := sorted(held - axes_of(axes)):
            raise MscvtError(
                f"mscvt_names: the name {names[role]!r} of {role} holds {', '.join(unknown)}, which is no axis of it",
                hint=f"A name may hold {{layer}}, {{mtp}} and the axes that rule {rule.key!r} gives {role}: {axes!r}.",
            )
        return held

    def uneven(self, counts: Mapping[str, int]) -> Iterator[tuple[str, int, str, int]]:
        """Yield (axis, size, dimension, count) for every cut that does not divide evenly."""
        for layout in self._layouts.values():
            yield from layout.uneven(counts)
