"""A description's links grouped by Hugging Face's tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from math import prod
from typing import Any, NamedTuple

from mscvt.description.description import Description, Parameter
from mscvt.errors import Faults
from mscvt.layout.layout import Layout, Share, Side
from mscvt.layout.pairs import uncovered
from mscvt.parallel.grid import ShardName
from mscvt.plan.contents import Copy
from mscvt.plan.shares import Shares, filled
from mscvt.plan.targets import Target


class Use(NamedTuple):
    """A Hugging Face tensor in a parameter."""

    parameter: Parameter
    number: int
    """Which tensor of the layout's right side it is."""
    held: tuple[int, ...]
    """The index of each axis that its name holds."""

    @property
    def side(self) -> Side:
        """The tensor."""
        return self.parameter.layout.right[self.number]

    @property
    def mark(self) -> tuple[Layout, int, tuple[int, ...]]:
        """What uses have in common that lie in the same layout in the same way."""
        return self.parameter.layout, self.number, self.held


def uses_by_name(description: Description, *, with_copies: bool = False) -> dict[str, list[Use]]:
    """Every Hugging Face tensor -> where it goes; parameters that are copies of others count where that is wanted."""
    uses: dict[str, list[Use]] = {}
    for parameter in description.parameters:
        if with_copies or not parameter.is_copy:
            for number, (side, name) in enumerate(zip(parameter.layout.right, parameter.names, strict=True)):
                if not side.is_padding:
                    held = {run.axis: run for run in side.segments[0].held}
                    ranges = [range(held[axis].start, held[axis].start + held[axis].extent) for axis in side.held]
                    for at in product(*ranges):
                        uses.setdefault(filled(name, side.held, at), []).append(Use(parameter, number, at))
    return uses


class ByHuggingFace:
    """A description's links grouped by Hugging Face's tensors."""

    def __init__(self, description: Description, shares: Shares | None = None) -> None:
        self.description = description
        self.shares = shares or Shares(description)
        self.uses = uses_by_name(description)
        self._copies: dict[tuple[Any, ...], tuple[tuple[Copy, ...], tuple[tuple[int, Share], ...]]] = {}
        self._repeated: dict[str, list[str]] = {}
        for name, alias in sorted(description.aliases.items()):
            if alias.is_written:
                self._repeated.setdefault(alias.of, []).append(name)

    @cached_property
    def expected(self) -> Mapping[ShardName, tuple[int, ...]]:
        """Every tensor of every rank -> its shape."""
        return {
            name: cut.share.shape
            for parameter in self.description.parameters
            if not parameter.is_padding
            for cut in self.shares.of(parameter.layout)
            for name in self.shares.names(parameter, cut.share)
        }

    def handles(self) -> Iterator[str]:
        """The names."""
        yield from self.uses

    def targets(self, handle: str) -> tuple[Target, ...]:
        """One tensor, and its repetitions."""
        uses = self.uses[handle]
        copies, wanted = self._links(uses)
        sources = tuple(self.shares.first_name(uses[use].parameter, share) for use, share in wanted)
        keeps_dtype = any(use.parameter.keeps_dtype for use in uses)
        names = (handle, *self._repeated.get(handle, ()))
        return (Target(names, uses[0].side.shape, copies, sources, keeps_dtype),)

    def _links(self, uses: Sequence[Use]) -> tuple[tuple[Copy, ...], tuple[tuple[int, Share], ...]]:
        """The copies that fill a tensor, and for each of their sources the use and the share that it is."""
        mark = tuple(use.mark for use in uses)
        if mark not in self._copies:
            wanted: dict[tuple[int, int], int] = {}
            copies = tuple(
                Copy(None if use.parameter.is_padding else wanted.setdefault((number, share), len(wanted)), walk)
                for number, use in enumerate(uses)
                for share, walk in self.shares.inside(use.parameter.layout).get((use.number, use.held), ())
            )
            self._copies[mark] = (
                copies,
                tuple((use, self.shares.of(uses[use].parameter.layout)[share].share) for use, share in wanted),
            )
        return self._copies[mark]

    def equal(self, *, replicas: bool) -> Iterator[tuple[ShardName, ShardName]]:
        """Replicas of the shares that are read, and parameters that repeat others."""
        kept = {parameter.names: parameter for parameter in self.description.parameters if not parameter.is_copy}
        for parameter in self.description.parameters:
            if parameter.is_padding:
                continue
            original = kept[parameter.names] if parameter.is_copy else parameter
            for ours, theirs in zip(self.shares.of(original.layout), self.shares.of(parameter.layout), strict=True):
                first = self.shares.first_name(original, ours.share)
                names = self.shares.names(parameter, theirs.share)
                for name in names if replicas else names[:1]:
                    if name != first:
                        yield first, name

    def prove(self, faults: Faults) -> None:
        """Prove that no element of a share and none of a Hugging Face tensor is left out or in two places."""
        seen: set[object] = set()
        places: set[tuple[object, ...]] = set()
        for parameter in self.description.parameters:
            place = (parameter.stage, parameter.chunk, parameter.key)
            if place in places:
                faults.add(f"{parameter.key} (stage {parameter.stage}, {parameter.chunk}) is made by two rules")
            places.add(place)
            if parameter.layout not in seen:
                seen.add(parameter.layout)
                for cut in self.shares.of(parameter.layout):
                    if fault := uncovered(prod(cut.share.shape), [piece.pair for piece in cut.share.pieces]):
                        faults.add(f"{parameter.key}: {fault}")
                        break
        for name, uses in self.uses.items():
            mark = tuple(use.mark for use in uses)
            if mark not in seen:
                seen.add(mark)
                copies = [copy.pair for copy in self._links(uses)[0]]
                shapes = {use.side.shape for use in uses}
                if len(shapes) > 1:
                    faults.add(f"{name}: its rules give it different shapes, {', '.join(map(str, sorted(shapes)))}")
                elif fault := uncovered(uses[0].side.numel, copies):
                    faults.add(f"{name}: {fault}")
