"""From a request to a proven conversion, in either direction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mscvt import __version__
from mscvt.dialects.mindspeed.args_written import make_args
from mscvt.dialects.mindspeed.launch import training_flags
from mscvt.dialects.mindspeed.options import Options
from mscvt.errors import MscvtError
from mscvt.jobs.conversion import Conversion
from mscvt.jobs.models import check_options, model_from_args, model_from_config
from mscvt.jobs.plans import ITERATION, plan_to_huggingface, plan_to_megatron
from mscvt.jobs.request import Request
from mscvt.jobs.spellings import respelled
from mscvt.model.hyperparameters import read_config
from mscvt.plan.contents import OutputFile
from mscvt.plugins.family import Family
from mscvt.plugins.registry import Registry
from mscvt.tensors.info import TORCH_NAMES


def prepare_to_megatron(request: Request, registry: Registry) -> Conversion:
    """Plan Hugging Face -> Megatron.

    Raises:
        MscvtError: Where anything at all is wrong with the options, the plugin or the source.
    """
    from mscvt.formats.huggingface.reader import HuggingFaceSource
    from mscvt.formats.megatron_torch.paths import TRACKER, iteration_folder
    from mscvt.formats.megatron_torch.writer import allocate, offsets_in, write_tracker

    config = read_config(request.load_dir)
    family = registry.family(request.model_type) if request.model_type else registry.recognise(config)
    model = model_from_config(family, config, request.options, request.load_dir / "config.json", given=request.given)
    files = HuggingFaceSource(request.load_dir, dequantize=request.dequantize)
    source = respelled(files.tensors, files.tensor, family.model_type.spellings)
    try:
        plan = plan_to_megatron(
            model.description, source.tensors, left_out=family.left_out(model.h), dtype=request.dtype_name
        )
    except MscvtError as error:
        raise _with_better_type(error, config, family, registry) from None
    aliases = model.description.aliases.items()
    absent = [name for name, alias in aliases if alias.is_written and name not in source.tensors]
    args = make_args(family, model.h, model.options, model.kept, absent)
    args["params_dtype"] = TORCH_NAMES[plan.largest_dtype]
    topology = model.description.topology

    def allocate_rank(path: Path, file: OutputFile) -> dict[Any, int]:
        return allocate(path, file.tensors, args, topology.chunks_of(file.labels["pp"]), ITERATION)

    return Conversion(
        plan=plan,
        open_source=source.tensor,
        allocate=allocate_rank,
        offsets=lambda path, file: offsets_in(path, file.tensors),
        finish=lambda folder: write_tracker(folder, ITERATION),
        replaceable=(TRACKER, iteration_folder(ITERATION)),
        identity=_identity("hf2mg", request, family, files.files, model.options, config),
        notes=tuple(_left_out_notes(plan.left_out)),
        training_flags=" ".join(training_flags(family, model.options, model.h, model.layers)),
    )


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
    from mscvt.formats.huggingface.config_files import copy_config_files, find_config_files
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

    notes = () if config else ("config.json and the tokenizer are not written; --hf-cfg-dir DIR copies them",)

    def finish(folder: Path) -> None:
        if config is not None:
            family, dtype = model.family.model_type, TORCH_NAMES[plan.largest_dtype]
            copy_config_files(config_files, folder, config, model.h, family, dtype)
        write_index(folder, plan.files)

    return Conversion(
        plan=plan,
        open_source=source.tensor,
        allocate=lambda path, file: allocate(path, file.tensors),
        offsets=lambda path, file: offsets_in(path),
        finish=finish,
        replaceable=("model*.safetensors", INDEX, *(path.name for path in config_files)),
        identity=_identity("mg2hf", request, model.family, source.files, model.options, config),
        notes=(*model.notes, *notes),
    )


def _identity(
    direction: str,
    request: Request,
    family: Family,
    files: list[Path],
    options: Options,
    config: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the output's bytes depend on: the source as it is now, and all that was asked for."""
    configuration = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    status = [(str(path.relative_to(request.load_dir)), path.stat()) for path in files]
    return {
        "direction": direction,
        "mscvt": __version__,
        "plugin": f"{family.plugin.distribution} {family.plugin.version}",
        "model type": family.model_type.name,
        "options": {name: getattr(options, name) for name in options.__dataclass_fields__},
        "given": dict(request.given),
        "dtype": request.dtype,
        "dequantize": request.dequantize,
        "configuration": configuration,
        "source": [[name, status.st_size, status.st_mtime_ns] for name, status in status],
    }


def _left_out_notes(left_out: Mapping[str, str]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for name, why in left_out.items():
        reasons.setdefault(why, []).append(name)
    return [f"left out, {why}: {len(names)} tensors, {min(names)} and others" for why, names in sorted(reasons.items())]
