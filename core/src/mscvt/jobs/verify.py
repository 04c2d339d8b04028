"""Proving that a Hugging Face and a Megatron checkpoint hold the same weights.

The plan of a conversion is run against what is there: every tensor of every rank is made anew from the
Hugging Face side and compared, so replicas are proven equal too, and nothing can be missing or extra.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mscvt.dialects.options import Options
from mscvt.dialects.registry import load_registry
from mscvt.errors import Faults
from mscvt.executors.executor import Executor, Moved, Part, threads_of_part
from mscvt.formats.files import mapped_at_once
from mscvt.formats.huggingface.config import read_config
from mscvt.jobs.comparison import check_equal_sources
from mscvt.jobs.plans import plan_to_megatron
from mscvt.jobs.recorded_models import model_from_args
from mscvt.jobs.request import Request
from mscvt.jobs.sources import open_megatron, open_tensors
from mscvt.output.limits import allow_open_files
from mscvt.parallel.grid import ShardName
from mscvt.plan.contents import Plan, shown
from mscvt.plan.selection import divide_files, select_files
from mscvt.plugins.registry import Registry
from mscvt.records import dataclass
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.renamed import renamed
from mscvt.tensors.sources import NotedSource

if TYPE_CHECKING:
    from mscvt.engine.sinks import Difference
    from mscvt.jobs.sources import MegatronCheckpoint

_PADDING = "the padding of the vocabulary is not compared: training changes it"


@dataclass(frozen=True, slots=True)
class Differing:
    """A tensor that differs."""

    tensor: str
    """Its key, chunk and rank."""
    file: str
    index: list[int]
    """Of the first element that differs."""
    elements: int
    """How many elements differ."""
    of: int
    """How many there are."""
    largest: float | None
    """The largest difference of two values; None where one of them is NaN or infinite."""
    reach: float | None
    """The largest value, without its sign, that should be where elements differ."""
    made_from: list[str]
    """The Hugging Face tensors that it is made from."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification found."""

    is_equal: bool
    differences: tuple[Differing, ...]
    tensors: int
    """Megatron tensors compared, replicas counted."""
    nbytes: int
    seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Two checkpoints, and the plan by which they are compared."""

    plan: Plan
    source: NotedSource
    existing: MegatronCheckpoint
    notes: tuple[str, ...]
    """What is to be known of the model."""


@dataclass(frozen=True, slots=True)
class Found:
    """What differs among some tensors."""

    differences: Mapping[Any, Difference]
    padded: frozenset[Any]
    """Tensors whose padding is not zero."""


@dataclass(frozen=True, slots=True)
class _Order:
    """A part of a comparison."""

    request: Request
    only: str | None
    workers: int | None
    max_memory: int | None


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
    executor: Executor | None = None,
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
        workers: Threads, of each part where there are parts.
        max_memory: Bytes for buffers.
        started: Called when a phase begins.
        progress: Called with the bytes compared.
        executor: Where parts of the work run; None for this process alone.

    Raises:
        MscvtError: Where one of them can't be read, or they don't hold the same tensors.
    """
    request = Request(
        mg.absolute(),
        Options(),
        model_type=model_type,
        iteration=iteration,
        dtype=dtype,
        dequantize=dequantize,
        hf_cfg_dir=hf.absolute(),
    )
    from mscvt.tensors.computing import loading_seconds

    whole = _Order(request, None, workers, max_memory)
    comparison = prepare_comparison(request, registry)
    plan, source, existing = comparison.plan, comparison.source, comparison.existing
    began, loading = time.monotonic(), loading_seconds()
    started("verifying", plan.nbytes)
    with closing(source), closing(existing):
        found = (
            _compare(comparison, whole, progress) if executor is None else _in_parts(plan, whole, executor, progress)
        )
    made_from = {
        target: content.sources
        for unit in (plan.units() if found.differences else ())
        for content in unit.contents
        for target in content.targets
        if target in found.differences
    }
    differences = [
        _differing(name, difference, existing, request.load_dir, made_from[name])
        for name, difference in sorted(found.differences.items(), key=lambda item: item[0])
    ]
    notes = {*comparison.notes, *source.notes, *(f"left out: {why}" for why in plan.left_out.values())}
    if found.padded:
        notes.add(f"{_PADDING} ({len(found.padded)} tensors have some that is not zero)")
    return Report(
        is_equal=not differences,
        differences=tuple(differences),
        tensors=sum(len(file.tensors) for file in plan.files),
        nbytes=plan.nbytes,
        seconds=time.monotonic() - began - (loading_seconds() - loading),
        notes=tuple(sorted(notes)),
    )


def prepare_comparison(request: Request, registry: Registry) -> Comparison:
    """Plan a comparison.

    Args:
        request: Its source is the Megatron checkpoint, and `hf_cfg_dir` the one that it is compared with.
        registry: The plugins.

    Raises:
        MscvtError: As `verify_checkpoints`.
    """
    from mscvt.formats.huggingface.reader import open_source

    hf = request.hf_cfg_dir or request.load_dir
    existing = open_megatron(request.load_dir, request.iteration)
    config = read_config(hf) if (hf / "config.json").exists() else None
    model = model_from_args(existing, config, request, registry, against_original=True)
    open_tensors(existing, model)
    opened = open_source(hf, dequantize=request.dequantize, config=config)
    source = renamed(opened, model.family.model_type.spellings)
    left_out = model.family.left_out(model.h)
    plan = plan_to_megatron(model.description, source.tensors, left_out=left_out, dtype=request.dtype_name)
    _check_same_tensors(plan, existing.tensors)
    allow_open_files(read=mapped_at_once(opened.files) + mapped_at_once(existing.files))
    return Comparison(plan, source, existing, model.notes)


def _compare(comparison: Comparison, order: _Order, progress: Callable[[int], None]) -> Found:
    """Compare the tensors of some files, or all of them."""
    from mscvt.engine import DEFAULT_MEMORY, run_plan
    from mscvt.engine.sinks import CompareSink

    plan, source = comparison.plan, comparison.source
    chosen = {name for file in select_files(plan.files, order.only) for name in file.tensors}
    wanted = None if order.only is None else chosen.__contains__
    sink = CompareSink(comparison.existing.tensor, ignore_padding=True)
    check_equal_sources(plan, source.tensor, wanted)
    run_plan(
        plan,
        source.tensor,
        sink,
        workers=order.workers,
        max_memory=order.max_memory or DEFAULT_MEMORY,
        wanted=wanted,
        progress=progress,
    )
    return Found(sink.differences, frozenset(sink.padded))


def _in_parts(plan: Plan, whole: _Order, executor: Executor, progress: Callable[[int], None]) -> Found:
    """Compare in parts, and put together what they find."""
    selections = divide_files(plan.files, None, executor.room.processors)
    threads = threads_of_part(whole.workers, len(selections), executor.room)
    parts = [
        Part(replace(whole, only=only, workers=threads), sum(file.nbytes for file in select_files(plan.files, only)))
        for only in selections
    ]
    found: list[Found] = executor.run(_compare_part, parts, threads, progress)
    differences = {name: difference for part in found for name, difference in part.differences.items()}
    return Found(differences, frozenset().union(*(part.padded for part in found)))


@lru_cache(maxsize=1)
def _prepared(request: Request) -> Comparison:
    """The comparison that this process has planned, parts of which it is given one after the other."""
    return prepare_comparison(request, load_registry())


def _compare_part(order: _Order, moved: Moved) -> Found:
    """Compare a part, in the process that is given it."""
    comparison = _prepared(order.request)
    with closing(comparison.source), closing(comparison.existing):
        return _compare(comparison, order, moved)


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
                hint="--dtype says the type that weights were converted to; leave it out where each kept its own.",
            )
    faults.raise_if_any("the two checkpoints don't hold the same tensors")


def _differing(
    name: ShardName, found: Difference, existing: MegatronCheckpoint, folder: Path, sources: Sequence[str]
) -> Differing:
    info = existing.tensors[name]
    index, rest = [], found.first
    for size in reversed(info.shape):
        rest, position = divmod(rest, size)
        index.append(position)
    return Differing(
        tensor=shown(name),
        file=str(existing.files[info.file].relative_to(folder)),
        index=index[::-1],
        elements=found.elements,
        of=info.numel,
        largest=found.largest if isfinite(found.largest) else None,
        reach=found.reach if isfinite(found.reach) else None,
        made_from=list(map(shown, sources)),
    )
