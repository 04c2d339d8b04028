"""A conversion that writes a checkpoint of a training stack, from a plan of its shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from mscvt.dialects.settings import recorded_settings, settings_of, unsaid
from mscvt.jobs.identity import folders_of, identity_of
from mscvt.jobs.megatron_files import megatron_files
from mscvt.jobs.models import Model
from mscvt.jobs.prepared import Conversion
from mscvt.jobs.recorded_models import check_read_back
from mscvt.jobs.request import Request
from mscvt.plan.contents import Plan
from mscvt.records import dataclass
from mscvt.tensors.info import TORCH_NAMES
from mscvt.tensors.sources import Source


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a checkpoint records of itself besides the model."""

    absent: Sequence[str] = ()
    """What the source's MTP layers could have repeated and did not."""
    args: Mapping[str, Any] = field(default_factory=dict)
    flags: str | None = None
    """What the training script must be told; None for what follows from the model."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """The `args` of the source, which say what a configuration would."""
    load_flag: str = "--load"
    """How it is told the folder."""


def to_shards(
    direction: str,
    request: Request,
    model: Model,
    plan: Plan,
    source: Source,
    config: Mapping[str, Any] | None,
    notes: Sequence[str],
    recorded: Recorded,
) -> Conversion:
    """A conversion that writes a Megatron checkpoint.

    Args:
        direction: From what to what.
        request: What was asked for.
        model: The model in the layout that is written.
        plan: Its shards.
        source: What they are made from.
        config: The configuration that was read, or None.
        notes: What the user should know.
        recorded: What the checkpoint records.
    """
    dialect = model.dialect
    args = dialect.make_args(model.family, model.h, model.options, model.kept, recorded.absent)
    settings: dict[str, Any] = {}
    if recorded.flags is not None:
        flags = recorded.flags
    else:
        roles = model.family.roles(model.kept, model.h)
        has_experts, is_biased = "num_experts" in model.h, "moe.router_bias" in roles
        if config is None:
            settings = recorded_settings(recorded.source, has_experts=has_experts, is_biased=is_biased)
        else:
            said = model.family.respelled(config), model.family.args(model.h, model.kept)
            settings = settings_of(*said, has_experts=has_experts, is_biased=is_biased)
            usual = dialect.IS_USUAL
            notes = (*notes, *unsaid(*said, has_experts=has_experts, is_biased=is_biased, is_usual=usual))
        notes = (*notes, *dialect.unsaid(settings, roles))
        flags = " ".join(dialect.training_flags(model.family, model.options, model.h, model.kept, settings))
    args |= {**settings, "params_dtype": TORCH_NAMES[plan.largest_dtype], **recorded.args}
    args = dict(sorted(args.items()))
    if recorded.flags is None:
        check_read_back(model, args)
    files = megatron_files(model, plan, args)
    return Conversion(
        plan=plan,
        source=source,
        allocate=files.allocate,
        offsets=files.offsets,
        seal=files.seal,
        finish=files.finish,
        finishing=files.finishing,
        sources=folders_of(request),
        listed=files.listed,
        identity=identity_of(direction, request, model.family, source.files, model.options, config),
        notes=tuple(notes),
        training_flags=flags,
        target_layout=model.description,
        load_flag=recorded.load_flag,
    )
