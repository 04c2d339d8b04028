"""The way of one tensor: which part of it every rank holds, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mscvt.description.description import Description
from mscvt.errors import MscvtError, shown
from mscvt.errors.nearest import did_you_mean
from mscvt.layout.layout import Layout, Share
from mscvt.plan.by_huggingface import uses_by_name
from mscvt.plan.shares import Shares
from mscvt.records import dataclass
from mscvt.views.ranks import cut_text, ranks_text
from mscvt.views.regions import Span, region_text, spans_of


@dataclass(frozen=True, slots=True)
class Stop:
    """A part of a tensor, and the ranks that hold it."""

    ranks: tuple[str, ...]
    """Folded: `tp 0 pp 1 ep {0-7}`."""
    count: int
    chunk: str
    key: str
    shape: tuple[int, ...]
    """Of the tensor that the ranks hold."""
    region: str
    """What of the Hugging Face tensor it is; empty for all of it."""
    place: str
    """Where it lies in the ranks' tensor; empty where it fills it."""
    spans: tuple[Span, ...] | None
    """The region, for a drawing."""


@dataclass(frozen=True, slots=True)
class Way:
    """The way of one Hugging Face tensor."""

    name: str
    role: str
    shape: tuple[int, ...]
    cut: str
    """Which axes each parallel dimension cuts; empty where every rank holds all of it."""
    stops: tuple[Stop, ...]
    of: str = ""
    """The tensor that it repeats; its way is that one's."""


def way_of(description: Description, name: str) -> Way:
    """The way of a Hugging Face tensor.

    Raises:
        MscvtError: Where the model has no tensor of this name, or it is left out.
    """
    uses = uses_by_name(description, with_copies=True)
    if name in description.left_out:
        raise MscvtError(f"--tensor {shown(name)}: is not converted: {description.left_out[name]}")
    alias = description.aliases.get(name)
    original = alias.of if alias is not None else name
    if original not in uses:
        raise MscvtError(
            f"--tensor {shown(name)}: the model has no tensor of this name in Hugging Face",
            hint=did_you_mean(name, uses) or f"One of them is {next(iter(uses))}.",
        )
    shares, counts = Shares(description), description.topology.grid.counts
    stops: list[Stop] = []
    for use in uses[original]:
        parameter, layout = use.parameter, use.parameter.layout
        cuts = shares.of(layout)
        for number, walk in shares.inside(layout)[use.number, use.held]:
            share = cuts[number].share
            holders = shares.names(parameter)[number]
            start, loops = walk.left, [(extent, left) for extent, left, _ in walk.loops]
            stops.append(
                Stop(
                    ranks_text((rank for rank, _, _ in holders), description.topology.grid),
                    len(holders),
                    parameter.chunk,
                    holders[0][2],
                    share.shape,
                    region_text(use.side.shape, start, loops),
                    _place(layout, share, counts, walk.right, [(extent, right) for extent, _, right in walk.loops]),
                    spans_of(use.side.shape, start, loops),
                )
            )
    side = uses[original][0].side
    cut = ", ".join(dict.fromkeys(cut_text(use.parameter.layout.cuts) for use in uses[original]))
    return Way(name, side.name, side.shape, cut, tuple(stops), original if alias is not None else "")


def _place(
    layout: Layout, share: Share, counts: Mapping[str, int], start: int, loops: Sequence[tuple[int, int]]
) -> str:
    side = layout.left[0]
    if side.dimensions is None:
        return region_text(share.shape, start, loops)
    runs = side.segments[0].runs  # the shape doesn't follow memory: the axes that do are named instead
    sizes = [run.extent // counts.get(layout.cuts.get(run.axis, ""), 1) for run in runs]
    axes = ", ".join(f"{run.axis} {size}" for run, size in zip(runs, sizes, strict=True))
    return f"seen as [{axes}]: {region_text(sizes, start, loops) or 'all of it'}"
