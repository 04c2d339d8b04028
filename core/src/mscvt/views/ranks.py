"""Ranks and cuts in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from mscvt.errors.folding import fold_counted
from mscvt.layout.rules import EXPERT, EXPERT_TENSOR, TENSOR
from mscvt.parallel.grid import Grid, Rank

_SHORT: Mapping[str, str] = MappingProxyType({TENSOR: "tp", EXPERT: "ep", EXPERT_TENSOR: "etp"})
_FOLDED = 2


def cut_text(cuts: Mapping[str, str]) -> str:
    """Which axes each parallel dimension cuts: `ep: expert, etp: moe_ffn`.

    Args:
        cuts: Axis -> parallel dimension.
    """
    return ", ".join(f"{_SHORT[dimension]}: {axis}" for axis, dimension in sorted(cuts.items()))


def ranks_text(ranks: Iterable[Rank], grid: Grid, *, stages: bool = True) -> tuple[str, ...]:
    """Ranks, folded: `tp 0 pp 1 ep {0-7}`; dimensions with one rank are not said.

    Args:
        ranks: The ranks.
        grid: All ranks.
        stages: Whether to say the stage.
    """
    lines = []
    for rank in ranks:
        words = [
            *([f"tp {rank.tensor}"] if grid.tensor > 1 else []),
            *([f"pp {rank.pipeline}"] if grid.pipeline > 1 and stages else []),
            *([f"ep {rank.expert}"] if grid.expert > 1 else []),
        ]
        lines.append(" ".join(words) or "every rank")
    return tuple(line for line, _ in fold_counted(lines, _FOLDED))
