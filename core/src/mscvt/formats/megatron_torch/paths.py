"""Names inside a Megatron checkpoint.

Source: `get_checkpoint_name` in megatron/training/checkpointing.py.
"""

from __future__ import annotations

import re
from pathlib import Path

from mscvt.parallel.grid import Rank

TRACKER = "latest_checkpointed_iteration.txt"
SHARD = "model_optim_rng.pt"
_RANK = re.compile(r"mp_rank_(\d{2,})(?:_(\d{3,}))?(?:_(\d{3,}))?")


def iteration_folder(iteration: int | str) -> str:
    """`iter_0000001`, or `release`."""
    return iteration if isinstance(iteration, str) else f"iter_{iteration:07d}"


def rank_folder(rank: Rank, pipelines: int, experts: int) -> str:
    """`mp_rank_TT[_PPP][_EEE]`, with the parts that the topology has."""
    name = f"mp_rank_{rank.tensor:02d}"
    if pipelines > 1:
        name += f"_{rank.pipeline:03d}"
    if experts > 1:
        name += f"_{rank.expert:03d}"
    return name


def rank_of(name: str, pipelines: int) -> Rank:
    """The rank whose folder has this name, where there are so many stages.

    >>> rank_of("mp_rank_01_003", 1)
    Rank(tensor=1, pipeline=0, expert=3)
    """
    tensor, *others = (int(number) for number in name.split("_")[2:])
    pipeline = others.pop(0) if others and (pipelines > 1 or len(others) > 1) else 0
    return Rank(tensor, pipeline, others[0] if others else 0)


def is_rank_folder(path: Path) -> bool:
    """Whether a name in an iteration's folder is that of a rank."""
    return _RANK.fullmatch(path.name) is not None
