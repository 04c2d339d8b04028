"""From a request to a proven conversion, in either direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mscvt.errors import MscvtError
from mscvt.jobs.opened import open_checkpoint, open_model
from mscvt.jobs.plans import plan_reshard, plan_to_huggingface, plan_to_megatron
from mscvt.jobs.prepared import Conversion
from mscvt.jobs.request import Request
from mscvt.jobs.sources import has_factors, open_megatron, open_tensors, plain_folder
from mscvt.plugins.family import Family
from mscvt.plugins.registry import Registry
from mscvt.tensors.renamed import renamed
from mscvt.tensors.sources import NotedSource, Source


def prepare_to_megatron(request: Request, registry: Registry) -> Conversion:
    """Plan Hugging Face -> Megatron.

    Raises:
        MscvtError: Where anything at all is wrong with the options, the plugin or the source.
    """
    from mscvt.formats.huggingface.reader import open_source
    from mscvt.jobs.shards_written import Recorded, to_shards

    if request.lora.save_lora_to_mg:
        from mscvt.jobs.prepare_factors import prepare_factors

        return prepare_factors(request, registry)
    wanted = open_model(request, registry)
    config, model, adapter = wanted.config, wanted.model, wanted.adapter
    family = model.family
    original = open_source(request.load_dir, dequantize=request.dequantize, config=config)
    source: NotedSource = renamed(original, family.model_type.spellings)
    if adapter is not None:
        source = adapter.merged(source)
    try:
        plan = plan_to_megatron(
            model.description,
            source.tensors,
            iteration=model.dialect.ITERATION,
            is_distributed=model.is_distributed,
            left_out=family.left_out(model.h),
            dtype=request.dtype_name,
        )
    except MscvtError as error:
        raise _with_better_type(error, config, family, registry) from None
    aliases = model.description.aliases.items()
    absent = [alias.mark for name, alias in aliases if alias.is_written and name not in source.tensors]
    repeats = {
        name: f"equal to {alias.of}" for name, alias in aliases if not alias.is_written and name in source.tensors
    }
    notes = (
        *model.notes,
        *(adapter.notes if adapter else ()),
        *source.notes,
        *_left_out_notes({**plan.left_out, **repeats}),
    )
    return to_shards("hf2mg", request, model, plan, source, config, notes, Recorded(absent))


def prepare_reshard(request: Request, registry: Registry) -> Conversion:
    """Plan Megatron -> Megatron.

    Raises:
        MscvtError: Where anything at all is wrong with the options, the plugin or the source.
    """
    from mscvt.jobs.reshard import absent_of, models_of
    from mscvt.jobs.shards_written import Recorded, to_shards

    source = open_megatron(request.load_dir, request.iteration)
    there, wanted = models_of(source, request, registry)
    open_tensors(source, there)
    if has_factors(source, there.dialect.lora):
        raise MscvtError(
            f"{request.load_dir}: has factors of LoRA, whose layout can't be changed",
            hint="Export them with mg2hf --save-lora-to-hf and import them in the other layout with hf2mg "
            "--save-lora-to-mg, or merge them with mg2hf.",
        )
    plan = plan_reshard(
        there.description,
        wanted.description,
        source.tensors,
        iteration=wanted.dialect.ITERATION,
        is_distributed=wanted.is_distributed,
        dtype=request.dtype_name,
        replicas=request.replicas == "equal",
    )
    absent = absent_of(source.args, wanted)
    notes = (*wanted.notes, "optimizer states are not carried over")
    recorded = Recorded(absent, source=source.args)
    conversion = to_shards("mg2mg", request, wanted, plan, source, None, notes, recorded)
    return replace(conversion, source_layout=there.description)


def _with_better_type(error: MscvtError, config: Mapping[str, Any], family: Family, registry: Registry) -> MscvtError:
    """The same error, hinting at the model type that `config.json` names where that is another one."""
    try:
        better = registry.recognise(config).model_type.name
    except MscvtError:
        return error
    if better == family.model_type.name:
        return error
    said = config.get("model_type")
    hint = f"config.json says model_type {said!r}, which is --model-type-hf {better}."
    return MscvtError(error.message, faults=error.faults, hint=hint)


def prepare_to_huggingface(request: Request, registry: Registry) -> Conversion:
    """Plan Megatron -> Hugging Face.

    Raises:
        MscvtError: Where anything at all is wrong with the options, the plugin or the source.
    """
    from mscvt.jobs.huggingface_written import to_huggingface

    if request.lora.save_lora_to_hf:
        from mscvt.jobs.prepare_adapter import prepare_adapter

        return prepare_adapter(request, registry)
    if (folder := plain_folder(request.load_dir, request.iteration)) is not None:
        from mscvt.jobs.prepare_plain import prepare_plain

        return prepare_plain(folder, request, registry)
    source, model, config = open_checkpoint(request, registry)
    replicas = request.replicas == "equal"
    trained = None
    if request.lora.is_asked or has_factors(source, model.dialect.lora):
        from mscvt.jobs.trained_factors import read_trained

        trained = read_trained(request, model, source)
    shards: Source = source if trained is None else trained.merged()
    plan = plan_to_huggingface(model.description, shards.tensors, dtype=request.dtype_name, replicas=replicas)
    if trained is None:
        return to_huggingface(request, model, plan, shards, config)
    conversion = to_huggingface(request, model, trained.compared(plan), shards, config, trained.notes)
    return replace(conversion, compared=trained.shards)


def _left_out_notes(left_out: Mapping[str, str]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for name, why in left_out.items():
        reasons.setdefault(why, []).append(name)
    return [f"left out, {why}: {_counted(names)}" for why, names in sorted(reasons.items())]


def _counted(names: Sequence[str]) -> str:
    return min(names) if len(names) == 1 else f"{len(names)} tensors, {min(names)} and others"
