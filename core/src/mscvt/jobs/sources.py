"""Opening a Megatron checkpoint, of whichever format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mscvt.errors import MscvtError
from mscvt.jobs.models import Model
from mscvt.plan.by_huggingface import ByHuggingFace

if TYPE_CHECKING:
    from mscvt.dialects.lora import LoraNames
    from mscvt.formats.megatron_dist.checkpoint import DistCheckpoint
    from mscvt.formats.megatron_torch.reader import MegatronSource

    MegatronCheckpoint = MegatronSource | DistCheckpoint

_HALVES = 2
"""So many runs of rows has a matrix that one rank has saved as halves."""


def open_megatron(folder: Path, iteration: int | None = None) -> MegatronCheckpoint:
    """Find an iteration, and open it so far that it can be told which model it is.

    Raises:
        MscvtError: Where there is none, or it can't be read.
    """
    from mscvt.formats.megatron_torch.folder import find_iteration, is_distributed

    found = find_iteration(folder, iteration)
    if is_distributed(found):
        from mscvt.formats.megatron_dist.checkpoint import DistCheckpoint

        return DistCheckpoint(found)
    from mscvt.formats.megatron_torch.reader import MegatronSource

    return MegatronSource(found)


def plain_folder(folder: Path, iteration: int | None) -> Path | None:
    """The folder of an iteration where it is a plain one of `torch.distributed.checkpoint`, not Megatron's; None else.

    Raises:
        MscvtError: Where there is none.
    """
    from mscvt.formats.megatron_torch.folder import find_iteration, is_plain

    found = find_iteration(folder, iteration)
    return found if is_plain(found) else None


def has_factors(source: MegatronCheckpoint, dialect: LoraNames) -> bool:
    """Whether a checkpoint whose tensors are open has factors of LoRA, which its keys say."""
    return any(map(dialect.is_factor, {key for _, _, key in source.tensors}))


def open_tensors(source: MegatronCheckpoint, model: Model) -> None:
    """Find all tensors of a model in its checkpoint.

    Raises:
        MscvtError: Where files are missing or damaged, or tensors are not where they should be.
    """
    from mscvt.formats.megatron_torch.reader import MegatronSource

    topology = model.description.topology
    if isinstance(source, MegatronSource):
        source.open_ranks(list(topology.grid.ranks()), topology.grid.pipeline, topology.grid.expert)
        return
    names = model.dialect.DISTRIBUTED
    if names is None:
        raise MscvtError(
            f"{source.folder}: is a distributed checkpoint, whose names {model.dialect.NAME} does not have",
            hint="Let training save it with --ckpt-format torch.",
        )
    keys = [key for _, _, key in ByHuggingFace(model.description).expected]
    lora, factors = model.dialect.lora, list[str]()
    if any(map(lora.is_factor, source.some_shapes)):
        from mscvt.description.factors import parts_of

        weights = model.description.parameters
        parts = (part for weight in weights for part in parts_of(weight, lora.part_key) if part is not None)
        described = replace(model.description, parameters=(*weights, *parts))
        every = [key for _, _, key in ByHuggingFace(described).expected]
        factors = [factor for weight in every for factor in lora.factor_keys(weight) or ()]
    source.open(names.readings(keys, source.names, factors), topology.first.name)
    for name in source.tensors:
        if lora.is_halved(name[2]) and (count := source.cuts(name)) > _HALVES:
            raise MscvtError(
                f"{source.folder}: {name[2]} was saved by {count // _HALVES} tensor ranks, each of which divided its "
                "rows into halves that don't lie side by side",
                hint="Load it at tensor parallel size 1 and save it again, or let the training stack export the "
                "adapter for PEFT and give that with --lora-load.",
            )
