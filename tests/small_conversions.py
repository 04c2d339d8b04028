"""One small model, converted in both directions through the functions that the commands use, into several files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from golden_cases import CASES, build_source, load_case
from mscvt.dialects.options import Options
from mscvt.jobs.conversion import Conversion, Result, Settings, run_conversion
from mscvt.jobs.plans import plan_to_huggingface
from mscvt.jobs.prepare import prepare_to_huggingface, prepare_to_megatron
from mscvt.jobs.request import Request
from mscvt.output.record import parse
from mscvt.plugins.registry import load_registry

DIRECTIONS = ("hf2mg", "mg2hf")
PARTS = {
    "hf2mg": ("pp=1,ep=0-1", "pp=0", "pp=1,ep=2-3,tp=1", "tp=0,pp=1,ep=2-3"),
    "mg2hf": ("file=2-4", "file=1", "file=5-99"),
}
"""What `--only` divides the output into."""
SHARD_BYTES = 60_000
"""The largest file on the way back, so that there are several."""
OPTIONS = Options(
    target_tensor_parallel_size=2,
    target_pipeline_parallel_size=2,
    target_expert_parallel_size=4,
    moe_grouped_gemm=True,
)


class Sources(NamedTuple):
    """The same model in both formats."""

    hf: Path
    mg: Path


def make_sources(folder: Path) -> Sources:
    sources = Sources(build_source(load_case(CASES / "qwen3_moe_tp2_pp2_ep4_gemm.json"), folder / "hf"), folder / "mg")
    convert("hf2mg", sources, sources.mg, sync_seconds=60.0)
    return sources


def prepare(direction: str, sources: Sources, *, dtype: str | None = None, **options: Any) -> Conversion:
    registry = load_registry()
    if direction == "hf2mg":
        chosen = Options(**{**{n: getattr(OPTIONS, n) for n in Options.__dataclass_fields__}, **options})
        return prepare_to_megatron(Request(sources.hf, chosen, dtype=dtype), registry)
    request = Request(sources.mg, Options(), hf_cfg_dir=sources.hf, dtype=dtype, **options)
    planner = partial(plan_to_huggingface, shard_bytes=SHARD_BYTES)
    with patch("mscvt.jobs.prepare.plan_to_huggingface", planner):
        return prepare_to_huggingface(request, registry)


def convert(direction: str, sources: Sources, target: Path, **settings: Any) -> Result:
    """Convert with small buffers, and a journal that is written after every unit.

    Tests that do so replace os.fsync, which takes milliseconds and matters only where the power fails.
    """
    settings = {"sync_seconds": 0.0, "workers": 2, "max_memory": 1 << 17, **settings}
    return run_conversion(prepare(direction, sources), target, Settings(**settings))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def hidden(target: Path) -> Path:
    """Where unfinished work for a target lies."""
    return target.parent / f".{target.name}.mscvt"


def journalled(target: Path) -> int:
    """How many finished tensors the records of unfinished work name."""
    return sum(len(parse(path.read_bytes()).tensors) for path in (hidden(target) / "parts").glob("*"))
