"""A description's links grouped by Hugging Face's tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import NamedTuple

from mscvt.description.description import Description, Parameter
from mscvt.errors import Faults
from mscvt.layout.layout import Side
from mscvt.layout.pairs import uncovered
from mscvt.parallel.grid import ShardName
from mscvt.plan.contents import Copy
from mscvt.plan.shares import Shares
from mscvt.plan.targets import Form, Lot


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


class Part(NamedTuple):
    """A side of a parameter, with all of its tensors or one."""

    parameter: Parameter
    number: int
    indices: tuple[tuple[int, ...], ...]
    """Those of the side's indices that are meant."""

    @property
    def side(self) -> Side:
        """The side."""
        return self.parameter.layout.right[self.number]


Tensors = tuple[str, ...]
"""Hugging Face tensors whose names differ in the indices that they hold: all of a side, or one."""


def parts_by_names(description: Description, shares: Shares, *, with_copies: bool = False) -> dict[Tensors, list[Part]]:
    """Hugging Face tensors -> where they go; parameters that are copies of others count where that is wanted."""
    found: dict[Tensors, list[Part]] = {}
    for parameter in description.parameters:
        if with_copies or not parameter.is_copy:
            sides = zip(parameter.layout.right, shares.tensors(parameter), strict=True)
            for number, (side, names) in enumerate(sides):
                if not side.is_padding:
                    found.setdefault(names, []).append(Part(parameter, number, side.indices))
    if len({name for names in found for name in names}) == sum(map(len, found)):
        return found
    single: dict[Tensors, list[Part]] = {}  # some tensors of a side are in another one too, that has not the same
    for names, parts in found.items():
        for part in parts:
            for name, at in zip(names, part.indices, strict=True):
                single.setdefault((name,), []).append(part._replace(indices=(at,)))
    return single


def uses_by_name(description: Description, *, with_copies: bool = False) -> dict[str, list[Use]]:
    """Every Hugging Face tensor -> where it goes; parameters that are copies of others count where that is wanted."""
    return {
        name: [Use(part.parameter, part.number, part.indices[place]) for part in parts]
        for names, parts in parts_by_names(description, Shares(description), with_copies=with_copies).items()
        for place, name in enumerate(names)
    }


class ByHuggingFace:
    """A description's links grouped by Hugging Face's tensors."""

    def __init__(self, description: Description, shares: Shares | None = None) -> None:
        self.description = description
        self.shares = shares or Shares(description)
        self._parts = parts_by_names(description, self.shares)
        self._forms: dict[tuple[object, ...], tuple[Form, ...]] = {}
        self._repeated: dict[str, list[str]] = {}
        for name, alias in sorted(description.aliases.items()):
            if alias.is_written:
                self._repeated.setdefault(alias.of, []).append(name)

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every Hugging Face tensor -> its shape."""
        shapes: dict[str, tuple[int, ...]] = {}
        for names, parts in self._parts.items():
            shapes |= dict.fromkeys(names, parts[0].side.shape)
        return shapes

    @cached_property
    def expected(self) -> Mapping[ShardName, tuple[int, ...]]:
        """Every tensor of every rank -> its shape."""
        expected: dict[ShardName, tuple[int, ...]] = {}
        for parameter in self.description.parameters:
            if not parameter.is_padding:
                cuts = self.shares.of(parameter.layout)
                for cut, names in zip(cuts, self.shares.names(parameter), strict=True):
                    expected |= dict.fromkeys(names, cut.share.shape)
        return expected

    def lots(self) -> Iterator[Lot]:
        """The tensors of each side, each a piece of work of its own and with its repetitions."""
        for names, parts in self._parts.items():
            yield Lot(
                [(name, *self._repeated.get(name, ())) for name in names],
                self._forms_of(parts),
                [
                    shards[0]
                    for part in parts
                    if not part.parameter.is_padding
                    for shards in self.shares.names(part.parameter)
                ],
                [(number,) for number in range(len(names))],
                any(part.parameter.keeps_dtype for part in parts),
            )

    def _forms_of(self, parts: Sequence[Part]) -> tuple[Form, ...]:
        """How each tensor is filled from the shares of all of its parameters, one parameter's after the other's."""
        kind = tuple((part.parameter.layout, part.number, part.indices) for part in parts)
        if kind not in self._forms:
            counts = (0 if part.parameter.is_padding else len(self.shares.of(part.parameter.layout)) for part in parts)
            starts = tuple(accumulate(counts, initial=0))
            self._forms[kind] = tuple(
                self._form(
                    parts[0].side.shape, [part._replace(indices=(part.indices[place],)) for part in parts], starts
                )
                for place in range(len(parts[0].indices))
            )
        return self._forms[kind]

    def _form(self, shape: tuple[int, ...], parts: Sequence[Part], starts: Sequence[int]) -> Form:
        wanted: dict[int, int] = {}
        copies = tuple(
            Copy(None if part.parameter.is_padding else wanted.setdefault(start + share, len(wanted)), walk)
            for part, start in zip(parts, starts, strict=False)
            for share, walk in self.shares.inside(part.parameter.layout).get((part.number, part.indices[0]), ())
        )
        return Form(shape, copies, tuple(wanted))

    def equal(self, *, replicas: bool) -> Iterator[tuple[ShardName, Sequence[ShardName]]]:
        """Replicas of the shares that are read, and parameters that repeat others."""
        kept = {parameter.names: parameter for parameter in self.description.parameters if not parameter.is_copy}
        for parameter in self.description.parameters:
            if parameter.is_padding:
                continue
            original = kept[parameter.names] if parameter.is_copy else parameter
            for ours, theirs in zip(self.shares.names(original), self.shares.names(parameter), strict=True):
                names = theirs if replicas else theirs[:1]
                yield ours[0], names if parameter.is_copy else names[1:]

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
        for names, parts in self._parts.items():
            if (forms := self._forms_of(parts)) in seen:
                continue
            seen.add(forms)
            if len(shapes := {part.side.shape for part in parts}) > 1:
                faults.add(f"{names[0]}: its rules give it different shapes, {', '.join(map(str, sorted(shapes)))}")
                continue
            for name, form in zip(names, forms, strict=True):
                if fault := uncovered(parts[0].side.numel, [copy.pair for copy in form.copies]):
                    faults.add(f"{name}: {fault}")
