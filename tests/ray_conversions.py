"""What processes of a cluster import for its tests: a conversion that reads slowly, and notes who reads what."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from mscvt.jobs.plans import plan_to_huggingface
from mscvt.jobs.prepare import prepare_to_huggingface, prepare_to_megatron
from mscvt.jobs.prepared import Conversion
from mscvt.jobs.request import Request
from mscvt.plan.contents import Name
from mscvt.plugins.registry import Registry
from mscvt.tensors.sources import Source, SourceTensor
from small_conversions import SHARD_BYTES

LOG = "reads.log"
SECONDS = 0.02


class Read(NamedTuple):
    """A tensor that was read."""

    node: str
    process: int
    name: str


class SlowSource:
    """A source on a slow disk."""

    def __init__(self, source: Source, log: Path) -> None:
        self.source, self.log = source, log
        self.tensors, self.files = source.tensors, source.files

    def tensor(self, name: Name) -> SourceTensor:
        import ray

        time.sleep(SECONDS)
        with self.log.open("a") as log:
            log.write(f"{ray.get_runtime_context().get_node_id()} {os.getpid()} {name}\n")
        return self.source.tensor(name)

    def close(self) -> None:
        self.source.close()


def prepare_slow(request: Request, registry: Registry) -> Conversion:
    conversion = prepare_to_megatron(request, registry)
    return replace(conversion, source=SlowSource(conversion.source, request.load_dir.parent / LOG))


def prepare_small_files(request: Request, registry: Registry) -> Conversion:
    planner = partial(plan_to_huggingface, shard_bytes=SHARD_BYTES)
    with patch("mscvt.jobs.prepare.plan_to_huggingface", planner):
        return prepare_to_huggingface(request, registry)


def reads(folder: Path) -> list[Read]:
    """What was read so far."""
    log = folder / LOG
    lines = log.read_text().splitlines() if log.exists() else []
    return [Read(node, int(process), name) for node, process, name in map(str.split, lines)]
