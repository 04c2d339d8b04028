"""The distinct shares of each layout under a topology, worked out once for all layers that share a rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mscvt.description.description import Description, Parameter
from mscvt.layout.layout import Layout, Share, Side
from mscvt.layout.pairs import Pair
from mscvt.parallel.grid import Index, Rank, ShardName
from mscvt.plan.contents import Copy


class Cut(NamedTuple):
    """A share of a layout, ready to be filled in with names."""

    share: Share
    copies: tuple[Copy, ...]
    wanted: tuple[tuple[int, int], ...]
    """For each source of the copies: which side of the right, and which of the side's `indices` its name holds."""


class Shares:
    """The distinct shares of each layout under a topology, and who holds them."""

    def __init__(self, description: Description) -> None:
        self.grid = description.topology.grid
        self._cuts: dict[Layout, tuple[Cut, ...]] = {}
        self._inside: dict[Layout, dict[tuple[int, tuple[int, ...]], list[tuple[int, Pair]]]] = {}
        self._names: dict[tuple[Layout, int, str, str], tuple[tuple[ShardName, ...], ...]] = {}
        self._tensors: dict[tuple[Layout, tuple[str, ...]], tuple[tuple[str, ...], ...]] = {}
        self._ranks: dict[tuple[Layout, int], Mapping[Index, tuple[Rank, ...]]] = {}

    def of(self, layout: Layout) -> tuple[Cut, ...]:
        """All shares of a layout."""
        if layout not in self._cuts:
            indices = self.grid.holders(layout.dimensions)
            shares = layout.shares(self.grid.counts, indices)
            places = [{at: place for place, at in enumerate(side.indices)} for side in layout.right]
            self._cuts[layout] = tuple(_cut(layout, share, places) for share in shares)
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

    def names(self, parameter: Parameter) -> tuple[tuple[ShardName, ...], ...]:
        """For each share of a parameter's layout, where the ranks that hold it have it."""
        place = parameter.layout, parameter.stage, parameter.chunk, parameter.key
        if place not in self._names:
            self._names[place] = tuple(self._names_of(cut.share, *place) for cut in self.of(parameter.layout))
        return self._names[place]

    def tensors(self, parameter: Parameter) -> tuple[tuple[str, ...], ...]:
        """For each side of the right of a parameter's layout, its names for each of its `indices`; none for padding."""
        named = parameter.layout, parameter.names
        if named not in self._tensors:
            sides = zip(parameter.layout.right, parameter.names, strict=True)
            self._tensors[named] = tuple(() if side.is_padding else names_of(side, name) for side, name in sides)
        return self._tensors[named]

    def _names_of(self, share: Share, layout: Layout, stage: int, chunk: str, key: str) -> tuple[ShardName, ...]:
        key = filled(key, layout.left[0].held, share.numbers)
        return tuple([(rank, chunk, key) for rank in self.holders(layout, stage)[share.index]])

    def holders(self, layout: Layout, stage: int) -> Mapping[Index, tuple[Rank, ...]]:
        """Each place in a layout's dimensions -> the ranks of a stage that stand there."""
        if (layout, stage) not in self._ranks:
            self._ranks[layout, stage] = {
                index: tuple(Rank(tensor, stage, expert) for tensor, expert in pairs)
                for index, pairs in self.grid.holders(layout.dimensions).items()
            }
        return self._ranks[layout, stage]


def _cut(layout: Layout, share: Share, places: Sequence[Mapping[tuple[int, ...], int]]) -> Cut:
    wanted: dict[tuple[int, int], int] = {}
    copies = tuple(
        Copy(
            None
            if layout.right[piece.source].is_padding
            else wanted.setdefault((piece.source, places[piece.source][piece.held]), len(wanted)),
            piece.pair,
        )
        for piece in share.pieces
    )
    return Cut(share, copies, tuple(wanted))


def names_of(side: Side, name: str) -> tuple[str, ...]:
    """The names of a side's tensors, one for each of its `indices`."""
    names = [name] * len(side.indices)
    for number, axis in enumerate(side.held):
        hole = f"{{{axis}}}"
        names = [name.replace(hole, str(at[number])) for name, at in zip(names, side.indices, strict=True)]
    return tuple(names)


def filled(name: str, axes: Sequence[str], at: Sequence[int]) -> str:
    """A name with indices in the place of the axes that it holds."""
    if not axes:
        return name
    for axis, index in zip(axes, at, strict=True):
        name = name.replace(f"{{{axis}}}", str(index))
    return name
