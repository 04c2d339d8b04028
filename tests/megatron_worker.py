"""The ranks of the megatron-core check: `python megatron_worker.py JOB.json`.

The job names the checkpoints; each rank loads its shard of each into the real module, runs the
model, and saves to `rank_{RANK}.pt` beside the job what it found. It judges nothing: the tests do.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import megatron.core
import torch
import torch.distributed as dist
from megatron.core import parallel_state

import megatron_distributed as distributed
import megatron_reference as reference

WAITING = timedelta(seconds=300)


def described(tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """Shape and dtype of each tensor, as text that compares and prints well."""
    return {key: f"{list(value.shape)} {value.dtype}" for key, value in sorted(tensors.items())}


def inspect_case(case: dict[str, Any], token_ids: torch.Tensor) -> dict[str, Any]:
    """Load and run one checkpoint; all ranks call this together.

    Returns:
        `folder` read, `module` and `shard` (key -> shape and dtype, None where it didn't come to
        that), `error` (a traceback or None) and `logits` (None off the last pipeline stage, and on
        every rank if one failed to load).
    """
    sizes = reference.ParallelSizes(**case["sizes"])
    reference.start_model_parallel(sizes)
    found: dict[str, Any] = dict.fromkeys(("module", "shard", "error", "logits"))
    found["folder"] = reference.shard_folder(sizes)
    model = None
    try:
        path = Path(case["checkpoint"], found["folder"], "model_optim_rng.pt")
        shard = torch.load(path, weights_only=True)["model"]
        found["shard"] = described(shard)
        model = reference.build_model(case["hf"], case["qk_layernorm"], sizes, case["grouped"])
        found["module"] = described(reference.weights(model))
        model.load_state_dict(shard, strict=True)
        if case["saved"]:
            save_as_training(model, Path(case["saved"], found["folder"]), sizes, case)
    except Exception:  # any fault is the finding; the other cases go on
        found["error"] = traceback.format_exc()
    errors: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(errors, found["error"])
    # With one rank gone, the others would wait for it in the first collective.
    if model is not None and not any(errors):
        found["logits"] = reference.logits(model, token_ids)
    return found


def inspect_distributed(case: dict[str, Any], token_ids: torch.Tensor) -> dict[str, Any]:
    """Load a distributed checkpoint, run the model, and save it as training would; all ranks call this together.

    Returns:
        `error` (a traceback or None) and `logits` (None off the last pipeline stage).
    """
    sizes = reference.ParallelSizes(**case["sizes"])
    reference.start_model_parallel(sizes)
    model = reference.build_model(case["hf"], case["qk_layernorm"], sizes, case["grouped"])
    found: dict[str, Any] = dict.fromkeys(("error", "logits"))
    try:
        distributed.load(model, Path(case["checkpoint"]))
    except Exception:  # on all ranks, since they load together
        found["error"] = traceback.format_exc()
        return found
    found["logits"] = reference.logits(model, token_ids)
    args = argparse.Namespace(**reference.recorded_args(case["hf"], case["qk_layernorm"], sizes, case["grouped"]))
    distributed.save(model, Path(case["saved"]), args)
    return found


def save_as_training(
    model: torch.nn.Module, folder: Path, sizes: reference.ParallelSizes, case: dict[str, Any]
) -> None:
    """Save a rank as a training run of Megatron-LM does; ranks that hold the same write the same."""
    folder.mkdir(parents=True, exist_ok=True)
    args = argparse.Namespace(**reference.recorded_args(case["hf"], case["qk_layernorm"], sizes, case["grouped"]))
    state = {"args": args, "checkpoint_version": 3.0, "iteration": 7, "model": model.state_dict()}
    torch.save(state, folder / f"rank{dist.get_rank()}")
    (folder / f"rank{dist.get_rank()}").replace(folder / "model_optim_rng.pt")
    (folder.parents[1] / "latest_checkpointed_iteration.txt").write_text("7")


def run_rank(rank: int, job: dict[str, Any], folder: Path, ports: SimpleQueue[int]) -> None:
    """Inspect every case of the job as one rank."""
    torch.set_num_threads(1)
    torch.serialization.add_safe_globals([argparse.Namespace])
    reference.stand_in_for_cuda()
    store = shared_store(rank, job["world_size"], ports)
    token_ids = torch.tensor(job["token_ids"])
    found = {}
    for inspect, cases in ((inspect_case, job["cases"]), (inspect_distributed, job["distributed"])):
        for case in cases:
            with connected(rank, job["world_size"], dist.PrefixStore(case["name"], store)):
                found[case["name"]] = inspect(case, token_ids)
    torch.save(found, folder / f"rank_{rank}.pt")


def shared_store(rank: int, world_size: int, ports: SimpleQueue[int]) -> dist.Store:
    """What ranks find each other by; a file in its place would be asked for every 10 ms, group by group."""
    if rank > 0:
        return dist.TCPStore("127.0.0.1", ports.get(), timeout=WAITING)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=WAITING)
    for _ in range(world_size - 1):
        ports.put(store.port)
    return store


@contextmanager
def connected(rank: int, world_size: int, store: dist.Store) -> Iterator[None]:
    """Be a rank; each case anew, since every group that it makes has a thread that wakes a hundred times a second."""
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=WAITING)
    yield
    parallel_state.destroy_model_parallel()
    dist.barrier()
    dist.destroy_process_group()


def main(job_path: Path) -> int:
    """Start all ranks, which are copies of this process: to import megatron-core takes as long as many cases."""
    job = json.loads(job_path.read_text())
    if not megatron.core.__version__.startswith(job["core"] + "."):
        raise SystemExit(f"megatron-core {megatron.core.__version__} is here, expected {job['core']}")
    context = multiprocessing.get_context("fork")
    arguments = (job, job_path.parent, context.SimpleQueue())
    ranks = [context.Process(target=run_rank, args=(i, *arguments)) for i in range(job["world_size"])]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    return int(any(rank.exitcode for rank in ranks))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
