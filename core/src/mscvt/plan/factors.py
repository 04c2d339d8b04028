"""The factors in a checkpoint of a training stack: which weights have some, of what rank, and what they are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from math import prod

from mscvt.description.description import Description, Parameter
from mscvt.description.factors import FactorBook, Factored, parts_of
from mscvt.dialects.lora import LoraNames
from mscvt.errors import Faults
from mscvt.layout.layout import Run
from mscvt.layout.low_rank import RANK
from mscvt.parallel.grid import Grid, ShardName
from mscvt.plan.contents import shown
from mscvt.plan.shares import Shares, filled
from mscvt.records import dataclass
from mscvt.tensors.adapted import LowRank
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.laid_out import Plot


@dataclass(frozen=True, slots=True)
class Found:
    """The factors of a checkpoint."""

    factored: tuple[Factored, ...]
    rank: int
    """The rank of most of them."""
    ranks: Mapping[Parameter, int]
    """Weight -> the rank of its factors."""
    description: Description
    """The model, with each tensor of a fused weight as a weight of its own, where these have factors of their own."""
    apart: Mapping[Parameter, tuple[Parameter | None, ...]]
    """Fused weight -> its tensors, where these have factors of their own."""


def find_factors(
    description: Description,
    book: FactorBook,
    dialect: LoraNames,
    tensors: Mapping[ShardName, TensorInfo],
    names: set[ShardName],
) -> Found:
    """Find the weights that have factors.

    Args:
        description: The model.
        book: Describes factors.
        dialect: Says what factors are called.
        tensors: Everything that the checkpoint has.
        names: Which of its tensors are factors.

    Raises:
        MscvtError: Where a factor lacks the other one, has another shape than its weight needs, or is of no weight.
    """
    shares, faults = Shares(description), Faults()
    is_whole = set(shares.grid.counts.values()) == {1}
    parts = {w: tuple(parts_of(w, dialect.part_key)) for w in description.parameters} if is_whole else {}
    ranks: dict[Parameter, int] = {}
    taken: set[ShardName] = set()
    for weight in (*description.parameters, *(part for found in parts.values() for part in found if part)):
        many = prod(shares.grid.counts.values()) if book.is_spread else 1  # ranks that can be cut
        units, pairs = book.units(weight.layout, many), list(factors_of(weight, shares, book))
        expected = {name for _, a, b in pairs for name in (a, b)}
        there = expected & names
        taken |= there
        if units is None or not there:
            continue
        if lacking := expected - there:
            faults.add(
                f"missing: {shown(min(lacking))}, where {shown(min(there))} is",
                hint="Is the copy complete, and is it one checkpoint?",
            )
            continue
        unit_of_a, unit_of_b = (prod(shares.of(unit)[0].share.shape) for unit in (units.a, units.b))
        sizes = Counter(
            size for _, a, b in pairs for size in (tensors[a].numel / unit_of_a, tensors[b].numel / unit_of_b)
        )
        ranks[weight] = max(1, int(sizes.most_common(1)[0][0] * many))
    for name in sorted(names - taken):
        if what := dialect.explained(name[2]):
            faults.add(f"{shown(name)} {what}", hint="Merge it where it was trained, and convert the merged model.")
        else:
            faults.add(
                f"no rule knows the factor {shown(name)}", hint="A and B of LoRA can be converted, nothing else."
            )
    faults.raise_if_any("the checkpoint has factors that can't be read")
    apart = _apart(parts, ranks)
    whole = [weight for weight in description.parameters if weight not in apart]
    single = (part for found in apart.values() for part in found if part)
    description = replace(description, parameters=(*whole, *single))
    factored = tuple(book.as_trained(description, ranks))
    _check_shapes(factored, shares, book, tensors)
    rank = Counter(ranks.values()).most_common(1)[0][0] if ranks else 0
    return Found(factored, rank, ranks, description, apart)


def _apart(
    parts: Mapping[Parameter, Sequence[Parameter | None]], ranks: Mapping[Parameter, int]
) -> dict[Parameter, tuple[Parameter | None, ...]]:
    """The fused weights whose tensors have factors of their own -> those of their tensors that have some."""
    found, faults = {}, Faults()
    for weight, tensors in parts.items():
        adapted = tuple(tensor if tensor in ranks else None for tensor in tensors)
        if any(adapted):
            found[weight] = adapted
            if weight in ranks or len({ranks[tensor] for tensor in adapted if tensor}) > 1:
                faults.add(f"{weight.key} and its parts have factors of their own, or parts have different ranks")
    faults.raise_if_any("the checkpoint has factors that can't be read")
    return found


def _check_shapes(
    factored: Sequence[Factored], shares: Shares, book: FactorBook, tensors: Mapping[ShardName, TensorInfo]
) -> None:
    faults = Faults()
    for one in factored:
        shapes = [shares.of(factor.layout)[0].share.shape for factor in (one.a, one.b)]
        for _, *pair in factors_of(one.weight, shares, book):
            for name, shape in zip(pair, shapes, strict=True):
                if tensors[name].shape != shape:
                    faults.add(
                        f"{shown(name)} has the shape {list(tensors[name].shape)}, expected {list(shape)} at the rank "
                        f"{one.rank} and from the shape of its weight",
                        hint="Do the factors belong to this model, and were they trained with these ranks?",
                    )
    faults.raise_if_any("the checkpoint has factors of other shapes than its weights need")


def factors_of(weight: Parameter, shares: Shares, book: FactorBook) -> Iterator[tuple[ShardName, ShardName, ShardName]]:
    """Each shard of a weight, with what its A and its B would be called."""
    if book.units(weight.layout) is None:
        return
    for names in shares.names(weight):
        for rank, chunk, key in names:
            if (keys := book.keys(key)) is not None:
                yield (rank, chunk, key), (rank, chunk, keys[0]), (rank, chunk, keys[1])


def updates(
    description: Description, book: FactorBook, found: Found, alpha: float
) -> tuple[dict[ShardName, LowRank], dict[ShardName, Plot]]:
    """What is added to each shard: alpha / rank times the product of its own copies of the factors.

    Returns:
        Shard -> what is added; and B of fused weights whose tensors have factors of their own -> what it is laid out
        of.
    """
    shares = Shares(description)
    made, plots = {}, {}
    single = {one.weight: one for one in found.factored}
    for weight, parts in found.apart.items():
        own = [None if part is None else single[part] for part in parts]
        for shard, update, name, plot in _joined(weight, own, shares, book, alpha):
            made[shard], plots[name] = update, plot
    for one in found.factored:
        if one.weight in {part for parts in found.apart.values() for part in parts}:
            continue
        for shard, *names in factors_of(one.weight, shares, book):
            a, b = (
                _parts(name, one.weight, factor, shares.grid)
                for name, factor in zip(names, (one.a, one.b), strict=True)
            )
            left, right = (a, b) if one.is_transposed else (b, a)
            made[shard] = LowRank(left, right, one.rank, alpha / one.rank)
    return made, plots


def _joined(
    weight: Parameter, parts: Sequence[Factored | None], shares: Shares, book: FactorBook, alpha: float
) -> Iterator[tuple[ShardName, LowRank, ShardName, Plot]]:
    """The factors of a fused weight, of those of its tensors: their A one after the other, and B in ranks of its own.

    The weight is not cut, so each part's factors are those of a whole tensor.
    """
    rank = next(part.rank for part in parts if part is not None)
    starts = accumulate((rank if part else 0 for part in parts), initial=0)
    runs = [Run(RANK, start, rank) if part else None for part, start in zip(parts, starts, strict=False)]
    total = sum(run.extent for run in runs if run is not None)
    fused = book.factored(weight, Run(RANK, 0, total), runs)
    if fused is None:  # as no weight is that has parts with factors
        return
    of = {one.b.names[0]: one for one in parts if one is not None}
    cuts = zip(shares.of(weight.layout), shares.of(fused.b.layout), strict=True)
    named = zip(shares.names(weight), shares.names(fused.b), strict=True)
    for (weight_cut, b_cut), ((shard, *_), (name, *_)) in zip(cuts, named, strict=True):
        numbers = weight_cut.share.numbers
        keys = [(filled(one.a.key, one.a.layout.left[0].held, numbers)) for one in parts if one]
        sources = [
            (*name[:2], filled(of[fused.b.names[side]].b.key, weight.layout.left[0].held, numbers))
            for side, _ in b_cut.wanted
        ]
        walks = tuple((None if copy.source is None else sources[copy.source], copy.pair) for copy in b_cut.copies)
        right = tuple((*name[:2], key) for key in keys)
        yield shard, LowRank((name,), right, total, alpha / rank), name, Plot(b_cut.share.shape, walks)


def _parts(name: ShardName, weight: Parameter, factor: Parameter, grid: Grid) -> tuple[ShardName, ...]:
    """A factor on a rank, with what is beside it on other ranks where it is cut and its weight is not."""
    rank, chunk, key = name
    spread = [dimension for cut, dimension in factor.layout.cuts.items() if cut not in weight.layout.cuts]
    if not spread:
        return (name,)
    beside = {place[spread[0]]: pair for pair, place in grid.places.items() if pair[1] == rank.expert}
    return tuple((rank._replace(tensor=beside[index][0]), chunk, key) for index in sorted(beside))
