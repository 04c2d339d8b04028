"""The factors in a checkpoint of a training stack: which weights have some, of what rank, and what they are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from mscvt.description.description import Description, Parameter
from mscvt.description.factors import FactorBook, Factored
from mscvt.errors import Faults
from mscvt.parallel.grid import Grid, ShardName
from mscvt.plan.contents import shown
from mscvt.plan.shares import Shares
from mscvt.tensors.adapted import LowRank
from mscvt.tensors.info import TensorInfo


@dataclass(frozen=True, slots=True)
class Found:
    """The factors of a checkpoint."""

    factored: tuple[Factored, ...]
    rank: int
    """The rank of most of them."""
    ranks: Mapping[Parameter, int]
    """Weight -> the rank of its factors."""


def find_factors(
    description: Description, book: FactorBook, tensors: Mapping[ShardName, TensorInfo], names: set[ShardName]
) -> Found:
    """Find the weights that have factors.

    Args:
        description: The model.
        book: Describes factors.
        tensors: Everything that the checkpoint has.
        names: Which of its tensors are factors.

    Raises:
        MscvtError: Where a factor lacks the other one, has another shape than its weight needs, or is of no weight.
    """
    shares, faults = Shares(description), Faults()
    ranks: dict[Parameter, int] = {}
    taken: set[ShardName] = set()
    for weight in description.parameters:
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
        faults.add(f"no rule knows the factor {shown(name)}", hint="A and B of LoRA can be converted, nothing else.")
    faults.raise_if_any("the checkpoint has factors that can't be read")
    factored = tuple(book.as_trained(description, ranks))
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
    return Found(factored, Counter(ranks.values()).most_common(1)[0][0] if ranks else 0, ranks)


def factors_of(weight: Parameter, shares: Shares, book: FactorBook) -> Iterator[tuple[ShardName, ShardName, ShardName]]:
    """Each shard of a weight, with what its A and its B would be called."""
    if book.units(weight.layout) is None:
        return
    for cut in shares.of(weight.layout):
        for rank, chunk, key in shares.names(weight, cut.share):
            if (keys := book.keys(key)) is not None:
                yield (rank, chunk, key), (rank, chunk, keys[0]), (rank, chunk, keys[1])


def updates(description: Description, book: FactorBook, found: Found, alpha: float) -> dict[ShardName, LowRank]:
    """What is added to each shard: alpha / rank times the product of its own copies of the factors."""
    shares = Shares(description)
    made = {}
    for one in found.factored:
        for shard, *names in factors_of(one.weight, shares, book):
            a, b = (
                _parts(name, one.weight, factor, shares.grid)
                for name, factor in zip(names, (one.a, one.b), strict=True)
            )
            left, right = (a, b) if one.is_transposed else (b, a)
            made[shard] = LowRank(left, right, one.rank, alpha / one.rank)
    return made


def _parts(name: ShardName, weight: Parameter, factor: Parameter, grid: Grid) -> tuple[ShardName, ...]:
    """A factor on a rank, with what is beside it on other ranks where it is cut and its weight is not."""
    rank, chunk, key = name
    spread = [dimension for cut, dimension in factor.layout.cuts.items() if cut not in weight.layout.cuts]
    if not spread:
        return (name,)
    beside = {place[spread[0]]: pair for pair, place in grid.places.items() if pair[1] == rank.expert}
    return tuple((rank._replace(tensor=beside[index][0]), chunk, key) for index in sorted(beside))
