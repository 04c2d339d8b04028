"""Proving that a Hugging Face and a Megatron checkpoint hold the same weights.

The plan of a conversion is run against what is there: every tensor of every rank is made anew from the
Hugging Face side and compared, so replicas are proven equal too, and nothing can be missing or extra.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mscvt.dialects.options import Options
from mscvt.errors import Faults
from mscvt.formats.huggingface.config import read_config
from mscvt.jobs.comparison import check_equal_sources
from mscvt.jobs.models import model_from_args
from mscvt.jobs.plans import plan_to_megatron
from mscvt.jobs.request import Request
from mscvt.jobs.sources import open_megatron, open_tensors
from mscvt.parallel.grid import ShardName
from mscvt.plan.contents import Plan, shown
from mscvt.plugins.registry import Registry
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.renamed import renamed

if TYPE_CHECKING:
    from mscvt.jobs.sources import MegatronCheckpoint

_PADDING = "the padding of the vocabulary is not compared: training changes it"


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification found."""

    is_equal: bool
    differences: tuple[str, ...]
    """One line for each differing tensor: rank, file, key and the index of its first differing element."""
    tensors: int
    """Megatron tensors compared, replicas counted."""
    nbytes: int
    seconds: float
    notes: tuple[str, ...]


def verify_checkpoints(
    *,
    hf: Path,
    mg: Path,
    registry: Registry,
    model_type: str | None = None,
    iteration: int | None = None,
    dtype: str | None = None,
    dequantize: bool = False,
    workers: int | None = None,
    max_memory: int | None = None,
    started: Callable[[str, int], None] = lambda what, nbytes: None,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> Report:
    """Compare two checkpoints.

    Args:
        hf: Folder of the Hugging Face checkpoint, with its config.json.
        mg: Folder of the Megatron checkpoint.
        registry: The plugins.
        model_type: `--model-type-hf`; by default what the checkpoint records or config.json says.
        iteration: The iteration; by default what the tracker says.
        dtype: What the Hugging Face weights were converted to, if they were.
        dequantize: Decode FP8 weights before comparing.
        workers: Threads.
        max_memory: Bytes for buffers.
        started: Called when a phase begins.
        progress: Called with the bytes compared.

    Raises:
        MscvtError: Where one of them can't be read, or they don't hold the same tensors.
    """
    from mscvt.engine import DEFAULT_MEMORY, run_plan
    from mscvt.engine.sinks import CompareSink
    from mscvt.formats.huggingface.reader import open_source

    began = time.monotonic()
    existing = open_megatron(mg, iteration)
    config = read_config(hf) if (hf / "config.json").exists() else None
    request = Request(mg, Options(), model_type=model_type, dtype=dtype, hf_cfg_dir=hf)
    model = model_from_args(existing, config, request, registry, against_original=True)
    open_tensors(existing, model)
    source = renamed(open_source(hf, dequantize=dequantize, config=config), model.family.model_type.spellings)
    left_out = model.family.left_out(model.h)
    plan = plan_to_megatron(model.description, source.tensors, left_out=left_out, dtype=request.dtype_name)
    _check_same_tensors(plan, existing.tensors)
    started("verifying", plan.nbytes)
    sink = CompareSink(existing.tensor, ignore_padding=True)
    with closing(source), closing(existing):
        check_equal_sources(plan, source.tensor)
        run_plan(
            plan,
            source.tensor,
            sink,
            workers=workers,
            max_memory=max_memory or DEFAULT_MEMORY,
            progress=progress,
        )
        differences = [_difference(name, element, existing, mg) for name, element in sorted(sink.differences.items())]
    notes = {*model.notes, *source.notes, *(f"left out: {why}" for why in plan.left_out.values())}
    if sink.padded:
        notes.add(f"{_PADDING} ({len(sink.padded)} tensors have some that is not zero)")
    return Report(
        is_equal=not differences,
        differences=tuple(differences),
        tensors=sum(len(file.tensors) for file in plan.files),
        nbytes=plan.nbytes,
        seconds=time.monotonic() - began,
        notes=tuple(sorted(notes)),
    )


def _check_same_tensors(plan: Plan, existing: Mapping[Any, TensorInfo]) -> None:
    faults = Faults()
    expected = {name: what for file in plan.files for name, what in file.tensors.items()}
    for name in sorted(expected.keys() - existing.keys(), key=str):
        faults.add(f"missing in the Megatron checkpoint: {shown(name)}")
    for name in sorted(existing.keys() - expected.keys(), key=str):
        faults.add(f"only in the Megatron checkpoint: {shown(name)}")
    for name, (dtype, shape) in expected.items():
        info = existing.get(name)
        if info is not None and (info.dtype, info.shape) != (dtype, shape):
            faults.add(
                f"{shown(name)} is {info.dtype} {list(info.shape)}, expected {dtype} {list(shape)}",
                hint="Where weights were converted to another dtype, say so with --dtype.",
            )
    faults.raise_if_any("the two checkpoints don't hold the same tensors")


def _difference(name: ShardName, element: int, existing: MegatronCheckpoint, folder: Path) -> str:
    info = existing.tensors[name]
    index, rest = [], element
    for size in reversed(info.shape):
        rest, position = divmod(rest, size)
        index.append(position)
    path = existing.files[info.file].relative_to(folder)
    return f"{shown(name)}, first at index {list(reversed(index))}, in {path}"
