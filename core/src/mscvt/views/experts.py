"""Which expert lies where."""

from __future__ import annotations

from mscvt.description.description import Description
from mscvt.layout.rules import EXPERT
from mscvt.parallel.grid import Rank
from mscvt.records import dataclass
from mscvt.views.ranks import ranks_text


@dataclass(frozen=True, slots=True)
class ExpertPlace:
    """Experts that lie together, on every stage that has layers with experts."""

    first: int
    last: int
    ranks: tuple[str, ...]
    """Folded (tensor, expert) ranks: `tp {0-1} ep 3`."""


def expert_places(description: Description) -> tuple[ExpertPlace, ...]:
    """The experts, by the ranks that hold them; empty where the model has none."""
    size = next(
        (
            run.extent
            for parameter in description.parameters
            for axis, dimension in parameter.layout.cuts.items()
            if dimension == EXPERT
            for segment in parameter.layout.left[0].segments
            for run in (*segment.runs, *segment.held)
            if run.axis == axis
        ),
        0,
    )
    if not size:
        return ()
    grid = description.topology.grid
    each = size // grid.counts[EXPERT]
    holders: dict[int, list[Rank]] = {}
    for (tensor, expert), place in sorted(grid.places.items()):
        holders.setdefault(place[EXPERT], []).append(Rank(tensor, 0, expert))
    return tuple(
        ExpertPlace(
            place * each,
            place * each + each - 1,
            ranks_text(ranks, grid, stages=False),
        )
        for place, ranks in sorted(holders.items())
    )
