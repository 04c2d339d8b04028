"""The links of a description, grouped by what is to be written: by shard, by Hugging Face tensor, or joined.

A description links boxes of two vocabularies. Grouped by the training stack's tensors the links are the plan of one
direction, by Hugging Face's of the other; those of two descriptions, joined where they speak of the same Hugging Face
tensor, lead from one topology to another. A `Target` is such a group, without dtypes and files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Any, NamedTuple, Protocol

from mscvt.description.description import Description, Parameter
from mscvt.errors import Faults
from mscvt.layout.layout import Layout, Share
from mscvt.layout.pairs import Pair, compose, uncovered
from mscvt.layout.rules import EXPERT
from mscvt.parallel.grid import Rank, ShardName
from mscvt.plan.contents import Copy, Name


@dataclass(frozen=True, slots=True)
class Target:
    """A tensor to be written, and the links that fill it."""

    names: tuple[Name, ...]
    """All places that hold it."""
    shape: tuple[int, ...]
    copies: tuple[Copy, ...]
    sources: tuple[Name, ...]
    keeps_dtype: bool
    kin: tuple[Name, ...] = ()
    """Tensors whose dtype it takes where it is all padding and has no sources."""


class Grouping(Protocol):
    """Links in groups; a handle stands for targets that share sources."""

    @property
    def expected(self) -> Mapping[Name, tuple[int, ...]]:
        """Every tensor that is read -> its shape."""

    def handles(self) -> Iterator[Any]:
        """All work, in the order of the description."""

    def targets(self, handle: Any) -> tuple[Target, ...]:
        """The targets of one piece of work."""

    def equal(self, *, replicas: bool) -> Iterator[tuple[Name, Name]]:
        """Tensors that are not read, because they must be equal to others that are: (read, not read).

        Args:
            replicas: Whether what several ranks hold is among them.
        """

    def prove(self, faults: Faults) -> None:
        """Prove that each element on both sides is in exactly one place, once for each distinct layout."""


class _Cut(NamedTuple):
    """A share of a layout, ready to be filled in with names."""

    share: Share
    copies: tuple[Copy, ...]
    wanted: tuple[tuple[int, tuple[int, ...]], ...]
    """For each source of the copies: which tensor of the right side, and the indices that its name holds."""


class Shares:
    """The distinct shares of each layout under a topology, and who holds them."""

    def __init__(self, description: Description) -> None:
        self.grid = description.topology.grid
        self._cuts: dict[Layout, tuple[_Cut, ...]] = {}
        self._inside: dict[Layout, dict[tuple[int, tuple[int, ...]], list[tuple[int, Pair]]]] = {}

    def of(self, layout: Layout) -> tuple[_Cut, ...]:
        """All shares of a layout."""
        if layout not in self._cuts:
            indices = self.grid.holders(layout.dimensions)
            shares = layout.shares(self.grid.counts, indices)
            self._cuts[layout] = tuple(_cut(layout, share) for share in shares)
        return self._cuts[layout]

    def inside(self, layout: Layout) -> Mapping[tuple[int, tuple[int, ...]], Sequence[tuple[int, Pair]]]:
        """(Tensor of the right side, indices in its name) -> the numbers of the shares that hold it, and the walks."""
        if layout not in self._inside:
            found: dict[tuple[int, tuple[int, ...]], list[tuple[int, Pair]]] = {}
            for number, cut in enumerate(self.of(layout)):
                for piece in cut.share.pieces:
                    if not layout.right[piece.source].is_padding:
                        found.setdefault((piece.source, piece.held), []).append((number, piece.pair.inverse()))
            self._inside[layout] = found
        return self._inside[layout]

    def names(self, parameter: Parameter, share: Share) -> tuple[ShardName, ...]:
        """Where the ranks that hold a share have it."""
        layout = parameter.layout
        key = filled(parameter.key, layout.left[0].held, share.numbers)
        return tuple(
            (Rank(tensor, parameter.stage, expert), parameter.chunk, key)
            for tensor, expert in self.grid.holders(layout.dimensions)[share.index]
        )


def _cut(layout: Layout, share: Share) -> _Cut:
    wanted: dict[tuple[int, tuple[int, ...]], int] = {}
    copies = tuple(
        Copy(
            None
            if layout.right[piece.source].is_padding
            else wanted.setdefault((piece.source, piece.held), len(wanted)),
            piece.pair,
        )
        for piece in share.pieces
    )
    return _Cut(share, copies, tuple(wanted))


def filled(name: str, axes: Sequence[str], at: Sequence[int]) -> str:
    """A name with indices in the place of the axes that it holds."""
    for axis, index in zip(axes, at, strict=True):
        name = name.replace(f"{{{axis}}}", str(index))
    return name


class ByShard:
    """A description's links grouped by the training stack's tensors."""

    def __init__(self, description: Description) -> None:
        self.description = description
        self.shares = Shares(description)

    @cached_property
    def expected(self) -> Mapping[str, tuple[int, ...]]:
        """Every Hugging Face tensor that is read -> its shape."""
        return {name: uses[0].side.shape for name, uses in uses_by_name(self.description).items()}

    def handles(self) -> Iterator[tuple[Parameter, tuple[int, ...]]]:
        """Parameters and numbers of their shares; experts of different ranks, and those one by one, are apart."""
        for parameter in self.description.parameters:
            dimensions = parameter.layout.dimensions
            groups: dict[Any, list[int]] = {}
            for number, (share, _, _) in enumerate(self.shares.of(parameter.layout)):
                expert = share.index[dimensions.index(EXPERT)] if EXPERT in dimensions else None
                groups.setdefault((expert, share.numbers), []).append(number)
            yield from ((parameter, tuple(numbers)) for numbers in groups.values())

    def targets(self, handle: tuple[Parameter, tuple[int, ...]]) -> tuple[Target, ...]:
        """The shares of a parameter."""
        parameter, numbers = handle
        cuts = self.shares.of(parameter.layout)
        return tuple(self._target(parameter, cuts[number]) for number in numbers)

    def _target(self, parameter: Parameter, cut: _Cut) -> Target:
        right = parameter.layout.right
        sources = tuple(filled(parameter.names[side], right[side].held, at) for side, at in cut.wanted)
        return Target(
            self.shares.names(parameter, cut.share),
            cut.share.shape,
            cut.copies,
            sources,
            parameter.keeps_dtype,
            () if sources else tuple(filter(None, parameter.names)),
        )

    def equal(self, *, replicas: bool) -> Iterator[tuple[str, str]]:  # noqa: ARG002  # there are none on this side
        """Hugging Face tensors that repeat others."""
        for name, alias in sorted(self.description.aliases.items()):
            yield alias.of, name

    def prove(self, faults: Faults) -> None:
        """Prove both sides."""
        ByHuggingFace(self.description, self.shares).prove(faults)


@dataclass(frozen=True, slots=True)
class Use:
    """A Hugging Face tensor in a parameter."""

    parameter: Parameter
    number: int
    """Which tensor of the layout's right side it is."""
    held: tuple[int, ...]
    """The index of each axis that its name holds."""

    @property
    def side(self) -> Any:
        """The tensor."""
        return self.parameter.layout.right[self.number]

    @property
    def mark(self) -> tuple[Layout, int, tuple[int, ...]]:
        """What uses have in common that lie in the same layout in the same way."""
        return self.parameter.layout, self.number, self.held


def uses_by_name(description: Description) -> dict[str, list[Use]]:
    """Every Hugging Face tensor -> where it goes; parameters that are copies of others don't count."""
    uses: dict[str, list[Use]] = {}
    for parameter in description.parameters:
        if not parameter.is_copy:
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
        self._copies: dict[tuple[Any, ...], tuple[tuple[Copy, ...], tuple[tuple[int, int], ...]]] = {}
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
        sources = tuple(
            self.shares.names(uses[use].parameter, self.shares.of(uses[use].parameter.layout)[share].share)[0]
            for use, share in wanted
        )
        keeps_dtype = any(use.parameter.keeps_dtype for use in uses)
        names = (handle, *self._repeated.get(handle, ()))
        return (Target(names, uses[0].side.shape, copies, sources, keeps_dtype),)

    def _links(self, uses: Sequence[Use]) -> tuple[tuple[Copy, ...], tuple[tuple[int, int], ...]]:
        """The copies that fill a tensor, and for each of their sources the use and the share that it is."""
        mark = tuple(use.mark for use in uses)
        if mark not in self._copies:
            wanted: dict[tuple[int, int], int] = {}
            copies = tuple(
                Copy(wanted.setdefault((number, share), len(wanted)), walk)
                for number, use in enumerate(uses)
                for share, walk in self.shares.inside(use.parameter.layout).get((use.number, use.held), ())
            )
            self._copies[mark] = copies, tuple(wanted)
        return self._copies[mark]

    def equal(self, *, replicas: bool) -> Iterator[tuple[ShardName, ShardName]]:
        """Replicas of the shares that are read, and parameters that repeat others."""
        kept = {parameter.names: parameter for parameter in self.description.parameters if not parameter.is_copy}
        for parameter in self.description.parameters:
            original = kept[parameter.names] if parameter.is_copy else parameter
            for ours, theirs in zip(self.shares.of(original.layout), self.shares.of(parameter.layout), strict=True):
                first = self.shares.names(original, ours.share)[0]
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


class Joined:
    """The links from one topology to another: two descriptions, joined where they speak of the same tensor."""

    def __init__(self, source: Description, target: Description) -> None:
        self.source, self.target = ByHuggingFace(source), ByShard(target)
        self.expected = self.source.expected

    def handles(self) -> Iterator[Any]:
        """The target's parameters and shares."""
        return self.target.handles()

    def targets(self, handle: Any) -> tuple[Target, ...]:
        """The target's shares, made of the source's."""
        return tuple(map(self._joined, self.target.targets(handle)))

    def _joined(self, target: Target) -> Target:
        names: dict[Name, int] = {}
        copies: list[Copy] = []
        for source, walk in target.copies:
            if source is None:
                copies.append(Copy(None, walk))
                continue
            (between,) = self.source.targets(target.sources[source])
            for share, further in between.copies:
                for joined in compose(walk, further):
                    number = names.setdefault(between.sources[share or 0], len(names))
                    copies.append(Copy(number, joined))
        kin = tuple(name for kin in target.kin for between in self.source.targets(kin) for name in between.sources)
        return Target(target.names, target.shape, tuple(copies), tuple(names), target.keeps_dtype, kin)

    def equal(self, *, replicas: bool) -> Iterator[tuple[Name, Name]]:
        """The source's replicas."""
        return self.source.equal(replicas=replicas)

    def prove(self, faults: Faults) -> None:
        """Prove both descriptions, and that they are of the same tensors."""
        self.source.prove(faults)
        self.target.prove(faults)
        left_out = self.target.description.left_out
        for name in sorted((self.target.expected.keys() ^ self.source.uses.keys()) - left_out.keys()):
            faults.add(f"{name} is on one side only")
