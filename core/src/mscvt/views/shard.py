"""What one rank holds: keys, shapes, and which part of which Hugging Face tensor each is made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod

from mscvt.description.description import Description, Parameter
from mscvt.errors import MscvtError, shown
from mscvt.errors.folding import fold_counted
from mscvt.parallel.grid import Rank, ShardName
from mscvt.plan.shares import Cut, Shares, filled
from mscvt.records import dataclass
from mscvt.tensors.info import ITEM_SIZES
from mscvt.views.regions import region_text

_TERM = re.compile(r"(tp|pp|ep)=(\d{1,9})")
_FOLDED = 2
_PADDING = "zeros, as padding"


@dataclass(frozen=True, slots=True)
class ShardRow:
    """Tensors of a rank that differ in nothing but the numbers in their names."""

    chunk: str
    keys: str
    """Folded: `decoder.layers.{0-3}.mlp.linear_fc1.weight`."""
    count: int
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    """Of all of them."""
    sources: tuple[str, ...]
    """Folded Hugging Face names, each with what is taken of it: `model.embed_tokens.weight[0:512, :]`."""


@dataclass(frozen=True, slots=True)
class Shard:
    """What one rank holds."""

    rank: Rank
    rows: tuple[ShardRow, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(row.nbytes for row in self.rows)

    @property
    def tensors(self) -> int:
        """How many there are."""
        return sum(row.count for row in self.rows)


def read_rank(text: str, description: Description) -> Rank:
    """The rank that `pp=1,tp=0,ep=3` means; a dimension that has one rank need not be said.

    Raises:
        MscvtError: Where it can't be understood, or there is no such rank, or more than one.
    """
    said: dict[str, int] = {}
    for term in text.replace(" ", "").split(","):
        match = _TERM.fullmatch(term)
        if match is None or match[1] in said:
            raise MscvtError(
                f"--rank {shown(text)}: can't understand {shown(repr(term))}", hint="Write it like pp=1,tp=0,ep=3."
            )
        said[match[1]] = int(match[2])
    ranks = [rank for rank in description.topology.grid.ranks() if all(_place(rank)[d] == n for d, n in said.items())]
    if len(ranks) != 1:
        grid = description.topology.grid
        raise MscvtError(
            f"--rank {shown(text)}: {len(ranks)} ranks are so; there are tp 0-{grid.tensor - 1}, "
            f"pp 0-{grid.pipeline - 1}, ep 0-{grid.expert - 1}",
            hint="Say one number of each: tp, pp and ep."
            if ranks or grid.tensor * grid.expert == len(grid.places)
            else f"With experts that are not cut not every tp has every ep; there is {rank_text(next(grid.ranks()))}.",
        )
    return ranks[0]


def _place(rank: Rank) -> dict[str, int]:
    return {"tp": rank.tensor, "pp": rank.pipeline, "ep": rank.expert}


def rank_text(rank: Rank) -> str:
    """A rank, as `--rank` takes it."""
    return ",".join(f"{name}={number}" for name, number in _place(rank).items())


def shard_of(description: Description, rank: Rank, dtypes: Mapping[ShardName, str]) -> Shard:
    """What a rank holds.

    Args:
        description: The model.
        rank: The rank.
        dtypes: The dtype of each tensor of the rank, as safetensors names it.
    """
    shares = Shares(description)
    place = description.topology.grid.places[rank.tensor, rank.expert]
    alike: dict[tuple[object, ...], _Alike] = {}
    for parameter in description.parameters:
        if parameter.stage != rank.pipeline:
            continue
        layout = parameter.layout
        index = tuple(place[dimension] for dimension in layout.dimensions)
        for cut in shares.of(layout):
            if cut.share.index == index:
                key = filled(parameter.key, layout.left[0].held, cut.share.numbers)
                dtype = dtypes[rank, parameter.chunk, key]
                taken = sources_of(parameter, cut)
                mark = (parameter.chunk, layout, dtype, tuple(taken))
                if mark not in alike:
                    alike[mark] = _Alike(parameter.chunk, cut.share.shape, dtype, [], {place: [] for place in taken})
                alike[mark].keys.append(key)
                for region, names in taken.items():
                    alike[mark].sources[region] += names
    return Shard(rank, tuple(row for group in alike.values() for row in group.rows()))


Region = tuple[int, str]
"""A tensor of the right side, and what is taken of it."""


def sources_of(parameter: Parameter, cut: Cut) -> dict[Region, list[str]]:
    """What a share is made of: the Hugging Face tensors of which the same region is taken, together."""
    found: dict[Region, list[str]] = {}
    for piece in cut.share.pieces:
        side = parameter.layout.right[piece.source]
        if side.is_padding:
            found.setdefault((piece.source, _PADDING), [])
        else:
            region = region_text(side.shape, piece.pair.right, [(e, right) for e, _, right in piece.pair.loops])
            found.setdefault((piece.source, region), []).append(
                filled(parameter.names[piece.source], side.held, piece.held)
            )
    return found


@dataclass(frozen=True, slots=True)
class _Alike:
    """Tensors of one chunk that are made in the same way."""

    chunk: str
    shape: tuple[int, ...]
    dtype: str
    keys: list[str]
    sources: dict[Region, list[str]]

    def rows(self) -> list[ShardRow]:
        sources = []
        for (_, region), names in self.sources.items():
            folded = [name for name, _ in fold_counted(dict.fromkeys(names), _FOLDED)]
            sources += [f"{name}{region}" for name in folded] or [region]
        each = prod(self.shape) * ITEM_SIZES[self.dtype]
        return [
            ShardRow(self.chunk, keys, count, self.shape, self.dtype, each * count, tuple(sources))
            for keys, count in fold_counted(self.keys, _FOLDED)
        ]
