"""Opening a Megatron checkpoint, of whichever format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mscvt.errors import MscvtError
from mscvt.jobs.models import Model
from mscvt.plan.by_huggingface import ByHuggingFace

if TYPE_CHECKING:
    from mscvt.formats.megatron_dist.checkpoint import DistCheckpoint
    from mscvt.formats.megatron_torch.reader import MegatronSource

    MegatronCheckpoint = MegatronSource | DistCheckpoint


def open_megatron(folder: Path, iteration: int | None = None) -> MegatronCheckpoint:
    """Find an iteration, and open it so far that it can be told which model it is.

    Raises:
        MscvtError: Where there is none, or it can't be read.
    """
    from mscvt.formats.megatron_dist.checkpoint import DistCheckpoint, is_distributed
    from mscvt.formats.megatron_torch.folder import find_iteration
    from mscvt.formats.megatron_torch.reader import MegatronSource

    found = find_iteration(folder, iteration)
    return DistCheckpoint(found) if is_distributed(found) else MegatronSource(found)


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
    source.open(names.readings(keys), topology.first.name)
