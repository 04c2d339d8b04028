"""From a request to a proven conversion, in either direction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from mscvt import __version__
from mscvt.dialects import mindspeed
from mscvt.dialects.mindspeed.options import Options
from mscvt.errors import MscvtError
from mscvt.formats.huggingface.config import read_config
from mscvt.jobs.models import Model, check_options, model_from_args, model_from_config
from mscvt.jobs.plans import ITERATION, plan_reshard, plan_to_huggingface, plan_to_megatron
from mscvt.jobs.prepared import Conversion
from mscvt.jobs.request import Request
from mscvt.output.identity import source_identity
from mscvt.plan.contents import OutputFile, Plan
from mscvt.plugins.family import Family
from mscvt.plugins.registry import Registry
from mscvt.tensors.info import TORCH_NAMES
from mscvt.tensors.renamed import renamed
from mscvt.tensors.sources import Source


def prepare_to_megatron(request: Request, registry: Registry) -> Conversion:
    """Plan Hugging Face -> Megatron.

    Raises:
        MscvtError: Where anything at all is wrong with the options, the plugin or the source.
    """
    from mscvt.formats.huggingface.reader import open_source

    config = read_config(request.load_dir)
    family = registry.family(request.model_type) if request.model_type else registry.recognise(config)
    model = model_from_config(family, config, request.options, request.load_dir / "config.json", given=request.given)
    original = open_source(request.load_dir, dequantize=request.dequantize, config=config)
    source = renamed(original, family.model_type.spellings)
    try:
        plan = plan_to_megatron(
            model.description, source.tensors, left_out=family.left_out(model.h), dtype=request.dtype_name
        )
    except MscvtError as error:
        raise _with_better_type(error, config, family, registry) from None
    aliases = model.description.aliases.items()
    absent = [alias.mark for name, alias in aliases if alias.is_written and name not in source.tensors]
    repeats = {
        name: f"equal to {alias.of}" for name, alias in aliases if not alias.is_written and name in source.tensors
    }
    notes = (*model.notes, *source.notes, *_left_out_notes({**plan.left_out, **repeats}))
    return _to_shards("hf2mg", request, model, plan, source, absent, config, notes)


def _to_shards(
    direction: str,
    request: Request,
    model: Model,
    plan: Plan,
    source: Source,
    absent: Sequence[str],
    config: Mapping[str, Any] | None,
    notes: Sequence[str],
) -> Conversion:
    """A conversion that writes a Megatron checkpoint."""
    from mscvt.formats.megatron_torch.existing import listed_files
    from mscvt.formats.megatron_torch.paths import TRACKER
    from mscvt.formats.megatron_torch.writer import Allocator, write_tracker
    from mscvt.formats.torch_zip.sealing import write_checksums

    args = mindspeed.make_args(model.family, model.h, model.options, model.kept, absent)
    args["params_dtype"] = TORCH_NAMES[plan.largest_dtype]
    topology = model.description.topology

    allocator = Allocator(args, ITERATION)

    def allocate(path: Path, file: OutputFile) -> dict[Any, int]:
        return allocator.allocate(path, file.tensors, topology.chunks_of(file.labels["pp"]))

    def seal(path: Path, file: OutputFile, checksums: Mapping[Any, int]) -> None:
        offsets = allocator.offsets(path, file.tensors)
        write_checksums(
            path, {offsets[name]: checksums[name] for name, (_, shape) in file.tensors.items() if prod(shape)}
        )

    return Conversion(
        plan=plan,
        source=source,
        allocate=allocate,
        offsets=lambda path, file: allocator.offsets(path, file.tensors),
        seal=seal,
        finish=lambda folder: write_tracker(folder, ITERATION),
        finishing=(TRACKER,),
        sources=_sources(request),
        listed=lambda folder: listed_files(folder, ITERATION),
        identity=_identity(direction, request, model.family, source.files, model.options, config),
        notes=tuple(notes),
        training_flags=" ".join(mindspeed.training_flags(model.family, model.options, model.h, model.layers)),
        target_layout=model.description,
    )


def prepare_reshard(request: Request, registry: Registry) -> Conversion:
    """Plan Megatron -> Megatron.

    Raises:
        MscvtError: Where anything at all is wrong with the options, the plugin or the source.
    """
    from mscvt.formats.megatron_torch.reader import MegatronSource
    from mscvt.jobs.reshard import absent_of, models_of

    source = MegatronSource(request.load_dir, request.iteration)
    there, wanted = models_of(source.args, request, registry)
    grid = there.description.topology.grid
    source.open_ranks(list(grid.ranks()), grid.pipeline, grid.expert)
    plan = plan_reshard(
        there.description,
        wanted.description,
        source.tensors,
        dtype=request.dtype_name,
        replicas=request.replicas == "equal",
    )
    absent = absent_of(source.args, wanted)
    notes = (*wanted.notes, "optimizer states are not carried over")
    conversion = _to_shards("mg2mg", request, wanted, plan, source, absent, None, notes)
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
    from mscvt.formats.huggingface.config_files import adapt_config, copy_config_files, find_config_files
    from mscvt.formats.huggingface.existing import listed_files
    from mscvt.formats.huggingface.writer import INDEX, allocate, offsets_in, write_index
    from mscvt.formats.megatron_torch.reader import MegatronSource

    check_options(request.options)
    source = MegatronSource(request.load_dir, request.iteration)
    config = read_config(request.hf_cfg_dir) if request.hf_cfg_dir else None
    config_files = find_config_files(request.hf_cfg_dir) if request.hf_cfg_dir else []
    model = model_from_args(source.args, config, request, registry)
    grid = model.description.topology.grid
    source.open_ranks(list(grid.ranks()), grid.pipeline, grid.expert)
    replicas = request.replicas == "equal"
    plan = plan_to_huggingface(model.description, source.tensors, dtype=request.dtype_name, replicas=replicas)

    adapted = None
    notes: tuple[str, ...] = ("config.json and the tokenizer are not written; --hf-cfg-dir DIR copies them",)
    if config is not None:
        adapted, notes = adapt_config(config, model.h, model.family.model_type, TORCH_NAMES[plan.largest_dtype])

    def finish(folder: Path) -> None:
        if config is not None and adapted is not None:
            copy_config_files(config_files, folder, config, adapted)
        write_index(folder, plan.files)

    return Conversion(
        plan=plan,
        source=source,
        allocate=lambda path, file: allocate(path, file.tensors),
        offsets=lambda path, file: offsets_in(path),
        finish=finish,
        finishing=(INDEX, *(path.name for path in config_files)),
        sources=_sources(request),
        listed=listed_files,
        identity=_identity("mg2hf", request, model.family, source.files, model.options, config),
        notes=(*model.notes, *notes),
        source_layout=model.description,
    )


def _sources(request: Request) -> tuple[Path, ...]:
    """The folders that are read."""
    return tuple(folder for folder in (request.load_dir, request.hf_cfg_dir) if folder is not None)


def _identity(
    direction: str,
    request: Request,
    family: Family,
    files: Sequence[Path],
    options: Options,
    config: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the output's bytes depend on: the source as it is now, and all that was asked for."""
    configuration = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    return {
        "direction": direction,
        "mscvt": __version__,
        "plugin": f"{family.plugin.distribution} {family.plugin.version}",
        "model type": family.model_type.name,
        "options": {name: getattr(options, name) for name in options.__dataclass_fields__},
        "given": dict(request.given),
        "dtype": request.dtype,
        "dequantize": request.dequantize,
        "replicas": request.replicas,
        "configuration": configuration,
        "source": source_identity(request.load_dir, files),
    }


def _left_out_notes(left_out: Mapping[str, str]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for name, why in left_out.items():
        reasons.setdefault(why, []).append(name)
    return [f"left out, {why}: {_counted(names)}" for why, names in sorted(reasons.items())]


def _counted(names: Sequence[str]) -> str:
    return min(names) if len(names) == 1 else f"{len(names)} tensors, {min(names)} and others"
