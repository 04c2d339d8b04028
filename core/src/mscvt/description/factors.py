"""The factors of a model's weights, described from the description of the weights: nothing is written per family."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from itertools import product

from mscvt.description.description import Alias, Description, Parameter
from mscvt.layout.layout import Layout, Run, Side
from mscvt.layout.low_rank import RANK, FactorLayouts, factor_layouts
from mscvt.records import dataclass

FactorKeys = Callable[[str], tuple[str, str] | None]
"""A dialect's: key of a weight -> the keys of its A and B, or None."""
FactorNames = Callable[[str], tuple[str, str]]
"""Hugging Face's: name of a weight -> the names of its A and B."""


@dataclass(frozen=True, slots=True)
class Factored:
    """A weight that has factors."""

    weight: Parameter
    a: Parameter
    b: Parameter
    rank: int
    is_transposed: bool
    """Whether the weight lies in memory by columns."""
    aliases: Mapping[str, str] = field(hash=False)
    """Hugging Face's name of a factor -> that of another one, which is the same tensor of the training stack."""


class FactorBook:
    """Describes factors; their layouts are worked out once for all weights that share one."""

    def __init__(self, keys: FactorKeys, names: FactorNames, *, is_spread: bool = False) -> None:
        """Take what both sides call factors, and whether those of the training stack are cut wherever weights are."""
        self.keys, self.names, self.is_spread = keys, names, is_spread
        self._layouts: dict[tuple[Layout, Run, tuple[Run | None, ...]], FactorLayouts | None] = {}

    def layouts(self, layout: Layout, left: Run, right: Sequence[Run | None]) -> FactorLayouts | None:
        """The layouts of the factors of a weight; see `factor_layouts`."""
        key = layout, left, tuple(right)
        if key not in self._layouts:
            self._layouts[key] = factor_layouts(*key, is_spread=self.is_spread)
        return self._layouts[key]

    def units(self, layout: Layout, rank: int = 1) -> FactorLayouts | None:
        """The layouts of factors of one rank on both sides."""
        return self.layouts(layout, *((run := Run(RANK, 0, rank)), (run,) * len(layout.right)))

    def factored(self, weight: Parameter, left: Run, right: Sequence[Run | None]) -> Factored | None:
        """The factors of a weight.

        Args:
            weight: The weight.
            left: The ranks that they have in the training stack.
            right: The ranks of those of each Hugging Face tensor of the weight; None where it has none.
        """
        keys, layouts = self.keys(weight.key), self.layouts(weight.layout, left, right)
        if keys is None or layouts is None:
            return None
        aliases: dict[str, str] = {}
        made: list[Parameter] = []
        for number, (key, layout, of) in enumerate(
            zip(keys, (layouts.a, layouts.b), (layouts.a_of, layouts.b_of), strict=True)
        ):
            names = [""] * len(layout.right)
            for side, name, place in zip(weight.layout.right, weight.names, of, strict=True):
                if place is not None:
                    own = self.names(name)[number]
                    aliases |= _repeated(side, own, names[place]) if names[place] else {}
                    names[place] = names[place] or own
            made.append(replace(weight, key=key, layout=layout, names=tuple(names), keeps_dtype=False))
        a, b = made
        return Factored(weight, a, b, left.extent, layouts.is_transposed, aliases)

    def as_trained(self, description: Description, ranks: Mapping[Parameter, int]) -> Iterator[Factored]:
        """The factors of a model as a training stack has them, each weight with ranks of its own.

        A Hugging Face tensor of which several weights are parts has the ranks of all of them, one after the other.

        Args:
            description: The model.
            ranks: Weight -> the rank of its factors, for those that have some.
        """
        parts = _parts(description)
        for weight, rank in ranks.items():
            runs = [_run(weight, parts.get(name, ()), ranks) for name in weight.names]
            start = next(run.start for run in runs if run is not None)
            found = self.factored(weight, Run(RANK, start, rank), [run and run._replace(start=0) for run in runs])
            if found is not None:
                yield found

    def zeros(self, description: Description, ranks: Mapping[Parameter, int]) -> Iterator[Parameter]:
        """What the B of Hugging Face tensors has where a part of the tensor has no factors for a rank."""
        for name, parts in _parts(description).items():
            total = sum(ranks.get(part, 0) for part in parts)
            start = 0
            for part in parts if total and len(parts) > 1 else ():
                own, start = ranks.get(part, 0), start + ranks.get(part, 0)
                for gap in (Run(RANK, 0, start - own), Run(RANK, start, total - start)):
                    right = [Run(RANK, 0, total) if one == name else None for one in part.names]
                    layouts = self.layouts(part.layout, gap, right) if gap.extent else None
                    if layouts is not None:
                        empty = replace(layouts.b.left[0], is_padding=True)
                        names = tuple(self.names(name)[1] if not side.is_padding else "" for side in layouts.b.right)
                        layout = Layout((empty,), layouts.b.right, {})
                        yield replace(part, key=f"{part.key} {gap}", layout=layout, names=names, keeps_dtype=False)

    def describe(
        self, description: Description, found: Iterable[Factored], zeros: Iterable[Parameter] = ()
    ) -> Description:
        """A description of factors alone, under the topology of the weights."""
        every = tuple(found)
        aliases = {name: Alias(of, is_written=True) for one in every for name, of in one.aliases.items()}
        left_out = {name: why for weight, why in description.left_out.items() for name in self.names(weight)}
        parameters = (*(parameter for one in every for parameter in (one.a, one.b)), *zeros)
        return replace(description, parameters=parameters, aliases=aliases, left_out=left_out)


def parts_of(weight: Parameter, part_key: Callable[[str, str], str | None]) -> Iterator[Parameter | None]:
    """What each tensor of a fused weight would be, if it were a weight of its own; None for one that can't be."""
    held = weight.layout.left[0].held
    for side, name in zip(weight.layout.right, weight.names, strict=True):
        key = part_key(weight.key, side.name) if len(weight.layout.right) > 1 and side.held == held else None
        layout = Layout((replace(side, name=key or ""),), (side,), {})
        yield replace(weight, key=key, layout=layout, names=(name,)) if key else None


def _parts(description: Description) -> dict[str, list[Parameter]]:
    """Hugging Face name, with the axes that it holds -> the weights that have a part of the tensor."""
    found: dict[str, list[Parameter]] = {}
    for parameter in description.parameters:
        if not parameter.is_copy:
            for name in filter(None, dict.fromkeys(parameter.names)):
                found.setdefault(name, []).append(parameter)
    return found


def _run(weight: Parameter, parts: Sequence[Parameter], ranks: Mapping[Parameter, int]) -> Run | None:
    """Where the ranks of a weight begin among those of all parts of a tensor, and how many these are."""
    if not parts:
        return None
    before = sum(ranks.get(part, 0) for part in parts[: parts.index(weight)])
    return Run(RANK, before, sum(ranks.get(part, 0) for part in parts))


def _repeated(side: Side, name: str, of: str) -> dict[str, str]:
    """Names that hold axes, filled with every index."""
    runs = {run.axis: run for run in side.segments[0].held}
    ranges = [range(runs[axis].start, runs[axis].start + runs[axis].extent) for axis in side.held]
    found = {}
    for at in product(*ranges):
        ours, theirs = name, of
        for axis, index in zip(side.held, at, strict=True):
            ours, theirs = (text.replace(f"{{{axis}}}", str(index)) for text in (ours, theirs))
        found[ours] = theirs
    return found
