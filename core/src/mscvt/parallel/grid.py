"""Ranks: which there are, and where each stands in the parallel dimensions that tensors are cut by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import NamedTuple

from mscvt.records import dataclass


class Rank(NamedTuple):
    """One model-parallel rank, which is one file of a checkpoint."""

    tensor: int
    pipeline: int
    expert: int


ShardName = tuple[Rank, str, str]
"""A tensor of a checkpoint: rank, chunk (`model`, `model0`, ...) and key."""

Index = tuple[int, ...]
"""A place in some parallel dimensions, in their order."""


@dataclass(frozen=True)
class Grid:
    """The ranks of a checkpoint."""

    tensor: int
    """Tensor-parallel ranks, as files are named by them."""
    pipeline: int
    """Stages."""
    expert: int
    """Expert-parallel ranks, as files are named by them."""
    counts: Mapping[str, int]
    """Parallel dimension -> how many ways it cuts."""
    places: Mapping[tuple[int, int], Mapping[str, int]]
    """The (tensor, expert) ranks that exist on every stage, in order -> their place in each dimension."""
    _holders: dict[tuple[str, ...], Mapping[Index, tuple[tuple[int, int], ...]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def ranks(self, stage: int | None = None) -> Iterator[Rank]:
        """All ranks, or those of one stage, sorted as they are named."""
        stages = range(self.pipeline) if stage is None else (stage,)
        yield from sorted(Rank(tensor, pipeline, expert) for tensor, expert in self.places for pipeline in stages)

    def holders(self, dimensions: Sequence[str]) -> Mapping[Index, tuple[tuple[int, int], ...]]:
        """Each place in some dimensions -> the (tensor, expert) ranks that stand there, which hold the same."""
        key = tuple(dimensions)
        if key not in self._holders:
            found: dict[Index, list[tuple[int, int]]] = {}
            for pair, place in self.places.items():
                found.setdefault(tuple(place[dimension] for dimension in key), []).append(pair)
            self._holders[key] = {index: tuple(pairs) for index, pairs in sorted(found.items())}
        return self._holders[key]
