"""How long a conversion takes with one, two or three workers of a Ray cluster, and what many nodes would promise.

The workers are nodes of a cluster on this machine, with one processor each: what is measured is what Ray costs and how
far the parts overlap, not a network. For that there is a model with the two limits that a file system over a network
has: what a node's connection carries, and what the storage gives to all nodes together.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from checkpoints import write_checkpoint
from memory import mscvt
from models import SPEED, Model
from mscvt.jobs.prepare import prepare_to_megatron
from mscvt.jobs.request import Request
from mscvt.plugins.registry import load_registry
from speed import choose_folder

NODES = (1, 2, 4, 8)
_TERABYTES = 1.369, 2.574
"""What the conversion of DeepSeek-V3 reads and writes under TP 2, PP 8, EP 32."""


def expected_minutes(nodes: int, connection: float, storage: float, start: float) -> float:
    """Minutes that the model gives DeepSeek-V3.

    Args:
        nodes: Nodes that share the conversion, each reading what it writes from; no tensor is read twice.
        connection: What a node reads or writes, in GB/s; it does one after the other.
        storage: What the file system reads or writes for all nodes together, in GB/s.
        start: Seconds before the first byte moves.
    """
    rate = min(nodes * connection, storage)
    return (start + sum(_TERABYTES) * 1000 / rate) / 60


def measure(model: Model, folder: Path, workers: Sequence[int], rounds: int) -> dict[int, list[float]]:
    """Seconds of `hf2mg` by number of workers; 0 is without Ray, with as many threads as there are cores."""
    from ray.cluster_utils import Cluster

    hf, mg = folder / "hf", folder / "mg"
    write_checkpoint(hf, model)
    command = ["hf2mg", "--load-dir", hf, "--save-dir", mg, *model.flags, "--quiet"]
    found: dict[int, list[float]] = {}
    for count in (0, *workers):
        cluster: Any = Cluster() if count else None
        for _ in range(count):
            cluster.add_node(num_cpus=1, include_dashboard=False)
        how = ["--executor", "ray", "--ray-address", cluster.address] if count else []
        try:
            for _ in range(rounds):
                found.setdefault(count, []).append(mscvt(*command, *how).seconds)
                shutil.rmtree(mg)
        finally:
            if cluster is not None:
                cluster.shutdown()
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print two tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", choices=SPEED, default="qwen3-30b-a3b")
    parser.add_argument("--folder", type=Path, help="where to measure; default: /dev/shm if it has room, else tmp")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connection", type=float, default=2.5, help="GB/s of a node (25 Gbit/s carry some 2.5)")
    parser.add_argument("--storage", type=float, default=20.0, help="GB/s of the storage, all nodes together")
    given = parser.parse_args(arguments)
    model = SPEED[given.scenario](1)
    with tempfile.TemporaryDirectory(prefix="mscvt-", dir=choose_folder(given.folder, 3 * model.nbytes)) as name:
        found = measure(model, Path(name), given.workers, given.rounds)
        source = Request(Path(name) / "hf", model.options)
        written = prepare_to_megatron(source, load_registry()).plan.nbytes / 1e9
    print(f"{given.scenario}, {written:.2f} GB written\n\n| workers | seconds | rounds |\n|---|---|---|")
    for count, seconds in found.items():
        rounds = " ".join(f"{each:.2f}" for each in seconds)
        print(f"| {f'Ray, {count}' if count else 'without Ray'} | {median(seconds):.2f} | {rounds} |")
    start = median(found[given.workers[0]])
    print(
        f"\nDeepSeek-V3, {given.connection} GB/s a node, {given.storage} GB/s in all\n\n| nodes | minutes |\n|---|---|"
    )
    for nodes in NODES:
        print(f"| {nodes} | {expected_minutes(nodes, given.connection, given.storage, start):.0f} |")


if __name__ == "__main__":
    main()
