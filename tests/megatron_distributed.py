"""Distributed checkpoints in the hands of real megatron-core: loaded as Megatron-LM does, saved as training does."""

from __future__ import annotations

import multiprocessing
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedObject, ShardedTensor, ShardedTensorFactory
from megatron.core.dist_checkpointing.optimizer import make_sharded_optimizer_tensor
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.models.gpt import GPTModel

CONTENT = {"singleton_local_shards": False, "chained_optim_avoid_prefix": True}


def load(model: GPTModel, folder: Path) -> None:
    """Load a checkpoint into a rank's part of a model, with the strictness that Megatron-LM has by default."""
    common = dist_checkpointing.load_common_state_dict(str(folder))
    content = dist_checkpointing.serialization.load_content_metadata(preloaded_state_dict=common)
    state = {"model": model.sharded_state_dict(metadata=_with_group(content))}
    model.load_state_dict(dist_checkpointing.load(state, str(folder))["model"], strict=True)


def save(model: GPTModel, folder: Path, args: Namespace) -> None:
    """Save a checkpoint from all ranks, with states of an optimizer and of random numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    if not filesystem_async.HAVE_PSUTIL:  # only asked how much memory is in use
        filesystem_async._process_memory = lambda: 0
    if filesystem_async._results_queue is None:  # left to megatron-core, of a process that imports everything anew
        filesystem_async._results_queue = multiprocessing.get_context("fork").Manager().Queue()
    weights = model.sharded_state_dict(metadata=_with_group(CONTENT))
    generator = torch.Generator().manual_seed(5)
    moments = {
        f"{kind}.{key}": make_sharded_optimizer_tensor(
            value, torch.randn(value.data.shape, generator=generator), f"optimizer.state.{kind}"
        )
        for key, value in weights.items()
        for kind in ("exp_avg", "exp_avg_sq")
        if isinstance(value, (ShardedTensor, ShardedTensorFactory))
    }
    state: dict[str, Any] = {
        "args": args,
        "checkpoint_version": 3.0,
        "iteration": 7,
        "model": weights,
        "optimizer": {**moments, "param_groups": [{"lr": 1e-3, "step": 7}]},
        "rng_state": ShardedObject("rng_state", [{"seed": 1}], (1,), (0,), replica_id=dist.get_rank()),
    }
    dist_checkpointing.save(state, str(folder), content_metadata=CONTENT)
    (folder.parent / "latest_checkpointed_iteration.txt").write_text("7")


def _with_group(content: dict[str, Any] | None) -> dict[str, Any]:
    return {**(content or {}), "dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True)}
