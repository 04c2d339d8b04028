"""Which files a Megatron checkpoint consists of that is in a folder already."""

from __future__ import annotations

from pathlib import Path

from mscvt.errors import MscvtError
from mscvt.formats.megatron_torch.paths import SHARD, iteration_folder, rank_folder
from mscvt.formats.megatron_torch.reader import MegatronSource
from mscvt.parallel.grid import Rank

_SIZES = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "expert_model_parallel_size")
_MOST = 1 << 20
"""More ranks than any training has."""


def listed_files(folder: Path, iteration: int | str) -> set[str]:
    """The shards of an iteration by the checkpoint's own account, as paths below the folder.

    Its `args` say how many ranks there are. Where they don't, or it is no checkpoint, there are none.
    """
    try:
        args = MegatronSource(folder, iteration).args
    except MscvtError:
        return set()
    tensors, pipelines, experts = (_count(args.get(name)) for name in _SIZES)
    if not 0 < tensors * pipelines * experts <= _MOST:
        return set()
    return {
        f"{iteration_folder(iteration)}/{rank_folder(Rank(t, p, e), pipelines, experts)}/{SHARD}"
        for t in range(tensors)
        for p in range(pipelines)
        for e in range(experts)
    }


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
