"""How the files of a Megatron checkpoint are made, in each of its formats."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mscvt.dialects.dialect import Distributed
from mscvt.jobs.models import Model
from mscvt.plan.contents import Name, OutputFile, Plan
from mscvt.records import dataclass


@dataclass(frozen=True)
class MegatronFiles:
    """Fields of a `Conversion`."""

    allocate: Callable[[Path, OutputFile], Mapping[Name, int]]
    offsets: Callable[[Path, OutputFile], Mapping[Name, int]]
    seal: Callable[[Path, OutputFile, Mapping[Name, int]], None]
    finish: Callable[[Path], None]
    finishing: tuple[str, ...]
    listed: Callable[[Path], Collection[str]]


def megatron_files(model: Model, plan: Plan, args: Mapping[str, Any]) -> MegatronFiles:
    """How the files of a plan are made.

    Args:
        model: The model.
        plan: The plan.
        args: What the checkpoint shall record.
    """
    names = model.dialect.DISTRIBUTED
    if names is not None and model.is_distributed:
        return _global_files(model, plan, args, names)
    return _rank_files(model, args)


def _rank_files(model: Model, args: Mapping[str, Any]) -> MegatronFiles:
    """A file for each rank."""
    from mscvt.formats.megatron_torch.paths import TRACKER
    from mscvt.formats.megatron_torch.writer import Allocator, write_tracker

    dialect, topology = model.dialect, model.description.topology
    allocator = Allocator(args, dialect.ITERATION, lambda keys: dialect.empty_states(model.options, keys))

    def content(file: OutputFile) -> tuple[Mapping[Name, tuple[str, tuple[int, ...]]], Sequence[str]]:
        return file.tensors, topology.chunks_of(file.labels["pp"])

    return MegatronFiles(
        lambda path, file: allocator.allocate(path, *content(file)),
        lambda path, file: allocator.offsets(path, *content(file)),
        lambda path, file, checksums: allocator.seal(path, *content(file), checksums),
        lambda folder: write_tracker(folder, dialect.ITERATION),
        (TRACKER,),
        lambda folder: _listed(folder, dialect.ITERATION),
    )


def _global_files(model: Model, plan: Plan, args: Mapping[str, Any], names: Distributed) -> MegatronFiles:
    """Files of a bounded size with chunks of global tensors, and those that say what they are."""
    from argparse import Namespace

    from mscvt.formats.megatron_dist.writer import SAYING, DistAllocator, write_common
    from mscvt.formats.megatron_torch.paths import TRACKER, iteration_folder
    from mscvt.formats.megatron_torch.writer import CHECKPOINT_VERSION, write_tracker

    shapes = {name[2]: shape for file in plan.files for name, (_, shape) in file.tensors.items()}
    slots = names.slots(model.options, shapes)
    states = model.dialect.empty_states(model.options, list(shapes))
    allocator = DistAllocator(lambda name: slots[name[2]])
    release = iteration_folder(model.dialect.ITERATION)
    common = {
        "args": Namespace(**args),
        "checkpoint_version": CHECKPOINT_VERSION,
        "iteration": 0,
        "num_floating_point_operations_so_far": 0,
        "content_metadata": dict(names.content(slots)),
    }

    def finish(folder: Path) -> None:
        allocator.write_metadata(folder / release, plan.files, list(names.objects(slots, states)))
        write_common(folder / release, common)
        write_tracker(folder, model.dialect.ITERATION)

    return MegatronFiles(
        allocator.allocate,
        allocator.offsets,
        allocator.seal,
        finish,
        (*(f"{release}/{name}" for name in SAYING), TRACKER),
        lambda folder: _listed(folder, model.dialect.ITERATION),
    )


def _listed(folder: Path, iteration: int | str) -> set[str]:
    """The files of an iteration in a folder by its own account, in either format, as paths below the folder."""
    from mscvt.formats.megatron_dist import existing as distributed
    from mscvt.formats.megatron_torch import existing as ranks

    return ranks.listed_files(folder, iteration) | distributed.listed_files(folder, iteration)
