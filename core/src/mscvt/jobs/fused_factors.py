"""An adapter's factors as training wants them: one A for tensors that are fused into one, one rank, one scale.

Where the tensors of a fused weight have equal A, it is theirs. Otherwise the A are stacked, and each tensor's B stands
in columns of its own with zeros beside it. What has a smaller rank than the largest is filled up with zeros.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import frexp, isclose

from mscvt.description.description import Description, Parameter
from mscvt.description.factors import FactorBook, Factored
from mscvt.dialects.lora import LoraNames
from mscvt.errors import Faults
from mscvt.formats.peft.names import factor_names
from mscvt.jobs.adapters import FittedAdapter, Pair
from mscvt.layout.layout import Run, Side
from mscvt.layout.low_rank import RANK
from mscvt.plan.shares import names_of
from mscvt.records import dataclass
from mscvt.tensors.quantized.weight import whole
from mscvt.tensors.views import View, ViewSource

_MERGE = "Without --save-lora-to-mg the adapter is merged, which is exact whatever it is."


@dataclass(frozen=True, slots=True)
class Member:
    """A Hugging Face tensor of a fused weight; several where its name holds an axis."""

    weights: tuple[str, ...]
    shape: tuple[int, ...]
    pairs: tuple[Pair | None, ...]
    """The factors of each."""

    @property
    def rank(self) -> int:
        """The rank of its factors, or 0."""
        return max((pair.rank for pair in self.pairs if pair is not None), default=0)


@dataclass(frozen=True, slots=True)
class Fused:
    """Factors for training."""

    factored: tuple[Factored, ...]
    rank: int
    alpha: int
    targets: frozenset[str]
    source: ViewSource
    """What they are made from."""
    is_stacked: bool
    """Whether fused weights have tensors with A of their own."""


def fuse(adapter: FittedAdapter, description: Description, book: FactorBook, dialect: LoraNames) -> Fused:
    """Fuse the factors of an adapter.

    Args:
        adapter: The adapter.
        description: The model in the layout that it is trained in.
        book: Describes factors.
        dialect: What the training can adapt.

    Raises:
        MscvtError: Where training has no place for a factor, or no one rank and alpha can say all scales.
    """
    faults = Faults()
    weights = {
        weight: _members(weight, adapter)
        for weight in description.parameters
        if not weight.is_copy and dialect.can_be_trained(weight.key) and book.units(weight.layout) is not None
    }
    placed = {name for members in weights.values() for member in members if member for name in member.weights}
    for name in sorted((adapter.pairs.keys() | adapter.copies.keys()) - placed) + sorted(
        adapter.copies.keys() & placed
    ):
        faults.add(f"{name}: training has no place for the adapter's change of it", hint=_MERGE)
    for members in weights.values():
        for member in filter(None, members):
            if len(ranks := {pair.rank for pair in member.pairs if pair is not None}) > 1:
                faults.add(
                    f"{member.weights[0]} and others like it have factors of different ranks, {sorted(ranks)}",
                    hint=_MERGE,
                )
    faults.raise_if_any("the adapter has no form as factors of a training run")
    source = adapter.views()
    runs, zeros, is_stacked = {}, dict[str, View](), False
    for weight, members in weights.items():
        if any(member and member.rank for member in members):
            is_shared = _are_shared(members, source)
            runs[weight] = _runs(members, is_shared=is_shared)
            zeros |= dict(_zeros(members, is_shared=is_shared))
            is_stacked |= not is_shared
    rank = max(run.start + run.extent for found in runs.values() for run in found if run is not None)
    alpha, folded = _scale(adapter, rank, faults)
    _check_folded(folded, source, faults)
    faults.raise_if_any("the adapter has no form as factors of a training run")
    targets = _targets(runs, weights, dialect)
    factored, seen = [], set[tuple[str, ...]]()
    for weight in weights:
        if dialect.is_grouped(weight.key) or dialect.target_module(weight.key) in targets:
            none: list[Run | None] = [None] * len(weight.names)
            one = book.factored(weight, Run(RANK, 0, rank), runs.get(weight, none))
            if one is not None:
                is_copy = any(one.a.names) and one.a.names in seen  # of a tensor that is divided among several weights
                factored.append(replace(one, a=replace(one.a, is_copy=is_copy)))
                seen.add(one.a.names)
    return Fused(tuple(factored), rank, alpha, targets, adapter.views(zeros, folded), is_stacked)


def _targets(changed: Iterable[Parameter], all_weights: Iterable[Parameter], dialect: LoraNames) -> frozenset[str]:
    """The modules that training must be told of: those with anything in them.

    Factors of grouped experts are there whatever is told, so they name their module only where no other weight has one
    of that name, which would get factors too, or where nothing else is changed.
    """

    def modules(weights: Iterable[Parameter], *, grouped: bool) -> set[str]:
        return {dialect.target_module(weight.key) for weight in weights if dialect.is_grouped(weight.key) == grouped}

    experts = modules(changed, grouped=True)
    alone = experts - modules(all_weights, grouped=False)
    return frozenset(modules(changed, grouped=False) | alone or experts)


def _members(weight: Parameter, adapter: FittedAdapter) -> list[Member | None]:
    """The Hugging Face tensors of a weight, with what the adapter has for them; None for padding."""
    return [
        None if side.is_padding else _member(side, name, adapter)
        for side, name in zip(weight.layout.right, weight.names, strict=True)
    ]


def _member(side: Side, name: str, adapter: FittedAdapter) -> Member:
    names = names_of(side, name)
    return Member(names, side.shape, tuple(map(adapter.pairs.get, names)))


def _are_shared(members: Sequence[Member | None], source: ViewSource) -> bool:
    """Whether the tensors of a fused weight have equal A, wherever they have any."""
    import torch

    adapted = [member for member in members if member is not None and member.rank]
    if len({member.rank for member in adapted}) > 1:
        return False
    for at in range(len(adapted[0].weights)):
        names = [factor_names(member.weights[at])[0] for member in adapted if member.pairs[at] is not None]
        for ours, theirs in pairwise(names):
            a, b = (whole(source, name) for name in (ours, theirs))
            if a.dtype != b.dtype or not torch.equal(a.view(torch.uint8), b.view(torch.uint8)):
                return False
    return True


def _runs(members: Sequence[Member | None], *, is_shared: bool) -> list[Run | None]:
    """The ranks of each tensor among those of the fused weight."""
    runs: list[Run | None] = []
    start = 0
    for member in members:
        if member is None or not member.rank:
            runs.append(None)
        else:
            runs.append(Run(RANK, start, member.rank))
            start += 0 if is_shared else member.rank
    return runs


def _zeros(members: Sequence[Member | None], *, is_shared: bool) -> Iterator[tuple[str, View]]:
    """Yield factors for tensors without any among others that have some, as for one of many experts."""
    adapted = [member for member in members if member is not None and member.rank]
    for member in adapted:
        for at, (weight, pair) in enumerate(zip(member.weights, member.pairs, strict=True)):
            if pair is None:
                a, b = factor_names(weight)
                others = [other.pairs[at] for other in adapted if is_shared and other.pairs[at] is not None]
                yield a, others[0].a if others and others[0] else View(None, (member.rank, member.shape[1]))
                yield b, View(None, (member.shape[0], member.rank))


def _scale(adapter: FittedAdapter, rank: int, faults: Faults) -> tuple[int, dict[str, float]]:
    """The alpha of all factors, and what the B of those with another scale are multiplied with."""
    scales = Counter(pair.scale for pair in adapter.pairs.values())
    scale = scales.most_common(1)[0][0]
    folded = {name: pair.scale / scale for name, pair in adapter.pairs.items() if pair.scale != scale}
    for name, factor in folded.items():
        if abs(frexp(factor)[0]) != 0.5:
            faults.add(
                f"{name} has the scale {adapter.pairs[name].scale:g}, others {scale:g}; training has one for all, and "
                "the quotient is no power of two",
                hint=_MERGE,
            )
    alpha = round(scale * rank)
    if alpha < 1 or not isclose(alpha, scale * rank, rel_tol=1e-12):
        faults.add(
            f"the scale {scale:g} at the rank {rank} is alpha {scale * rank:g}, and training takes whole numbers",
            hint=_MERGE,
        )
    return alpha, folded


def _check_folded(folded: Mapping[str, float], source: ViewSource, faults: Faults) -> None:
    """See that a multiplied B loses nothing."""
    for name, factor in folded.items():
        b = whole(source, factor_names(name)[1])
        if not ((b * factor) / factor).equal(b):
            faults.add(f"{name}: its B can't be multiplied with {factor:g} without a loss", hint=_MERGE)
