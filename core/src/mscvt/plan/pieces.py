"""Pieces of layouts, worked out once for all layers that share a rule."""

from __future__ import annotations

from collections.abc import Mapping

from mscvt.description.description import Parameter
from mscvt.layout.layout import Piece, uncovered
from mscvt.layout.rules import Resolved
from mscvt.parallel.topology import EXPERT, Rank, Topology

Index = tuple[int, ...]
"""A place in each of a layout's parallel dimensions, in their order."""


class PieceCache:
    """The distinct shares of every layout under a topology, and who holds them."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self._pieces: dict[tuple[int, Index], list[Piece]] = {}
        self._holders: dict[tuple[tuple[str, ...], int | None], dict[Index, tuple[tuple[int, int], ...]]] = {}
        self._by_part: dict[int, dict[int, list[tuple[Index, Piece]]]] = {}

    def holders(self, parameter: Parameter) -> Mapping[Index, tuple[tuple[int, int], ...]]:
        """Each distinct share of a parameter -> the (tensor, expert) ranks that hold it, all the same bytes."""
        dimensions, bucket = parameter.resolved.layout.dimensions, parameter.bucket
        key = (dimensions, bucket)
        if key not in self._holders:
            found: dict[Index, list[tuple[int, int]]] = {}
            for tensor, expert in self.topology.grid:
                place = self.topology.index(Rank(tensor, 0, expert))
                if bucket is None or place[EXPERT] == bucket:
                    found.setdefault(tuple(place[d] for d in dimensions), []).append((tensor, expert))
            self._holders[key] = {index: tuple(ranks) for index, ranks in found.items()}
        return self._holders[key]

    def pieces(self, resolved: Resolved, index: Index) -> list[Piece]:
        """The pieces of one share."""
        key = (id(resolved), index)
        if key not in self._pieces:
            layout = resolved.layout
            place = dict(zip(layout.dimensions, index, strict=True))
            self._pieces[key] = layout.pieces(self.topology.counts, place)
        return self._pieces[key]

    def of_part(self, parameter: Parameter, part: int) -> list[tuple[Index, Piece]]:
        """Which shares hold elements of a part, and which."""
        resolved = parameter.resolved
        if id(resolved) not in self._by_part:
            by_part: dict[int, list[tuple[Index, Piece]]] = {}
            for index in self.holders(parameter):
                for piece in self.pieces(resolved, index):
                    by_part.setdefault(piece.part, []).append((index, piece))
            self._by_part[id(resolved)] = by_part
        return self._by_part[id(resolved)].get(part, [])

    def local_shape(self, resolved: Resolved) -> tuple[int, ...]:
        """The shape of every share."""
        return resolved.layout.shape(self.topology.counts)

    def incomplete(self, parameter: Parameter) -> str | None:
        """Prove that every byte of every share is filled exactly once; says what is wrong."""
        layout = parameter.resolved.layout
        for index in self.holders(parameter):
            pieces = self.pieces(parameter.resolved, index)
            base = 0
            for segment in layout.segments:
                boxes = [piece.megatron for piece in pieces if piece.part in segment.parts]
                sizes = [
                    size // self.topology.counts[layout.cuts[axis]] if axis in layout.cuts else size
                    for axis, size in segment.axes
                ]
                if any(box.base != base for box in boxes):
                    return "its segments overlap"
                if fault := uncovered(sizes, boxes):
                    return fault
                numel = 1
                for size in sizes:
                    numel *= size
                base += numel
        return None
