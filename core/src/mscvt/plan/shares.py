"""The distinct shares of each layout under a topology, worked out once for all layers that share a rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mscvt.description.description import Description, Parameter
from mscvt.layout.layout import Layout, Share
from mscvt.layout.pairs import Pair
from mscvt.parallel.grid import Index, Rank, ShardName
from mscvt.plan.contents import Copy


class Cut(NamedTuple):
    """A share of a layout, ready to be filled in with names."""

    share: Share
    copies: tuple[Copy, ...]
    wanted: tuple[tuple[int, tuple[int, ...]], ...]
    """For each source of the copies: which tensor of the right side, and the indices that its name holds."""


class Shares:
    """The distinct shares of each layout under a topology, and who holds them."""

    def __init__(self, description: Description) -> None:
        self.grid = description.topology.grid
        self._cuts: dict[Layout, tuple[Cut, ...]] = {}
        self._holders: dict[Layout, Mapping[Index, tuple[tuple[int, int], ...]]] = {}
        self._inside: dict[Layout, dict[tuple[int, tuple[int, ...]], list[tuple[int, Pair]]]] = {}

    def of(self, layout: Layout) -> tuple[Cut, ...]:
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

    def first_name(self, parameter: Parameter, share: Share) -> ShardName:
        """Where the first of the ranks that hold a share has it."""
        tensor, expert = self._holders_of(parameter.layout)[share.index][0]
        key = filled(parameter.key, parameter.layout.left[0].held, share.numbers)
        return Rank(tensor, parameter.stage, expert), parameter.chunk, key

    def names(self, parameter: Parameter, share: Share) -> tuple[ShardName, ...]:
        """Where the ranks that hold a share have it."""
        key = filled(parameter.key, parameter.layout.left[0].held, share.numbers)
        return tuple(
            (Rank(tensor, parameter.stage, expert), parameter.chunk, key)
            for tensor, expert in self._holders_of(parameter.layout)[share.index]
        )

    def _holders_of(self, layout: Layout) -> Mapping[Index, tuple[tuple[int, int], ...]]:
        """Each place in a layout's dimensions -> the (tensor, expert) ranks that stand there."""
        if layout not in self._holders:
            self._holders[layout] = self.grid.holders(layout.dimensions)
        return self._holders[layout]


def _cut(layout: Layout, share: Share) -> Cut:
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
    return Cut(share, copies, tuple(wanted))


def filled(name: str, axes: Sequence[str], at: Sequence[int]) -> str:
    """A name with indices in the place of the axes that it holds."""
    if not axes:
        return name
    for axis, index in zip(axes, at, strict=True):
        name = name.replace(f"{{{axis}}}", str(index))
    return name
