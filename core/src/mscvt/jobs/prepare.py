"""From options and folders to a proven conversion, in either direction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from mscvt import __version__
from mscvt.description.description import Description, describe
from mscvt.dialects.mindspeed.args_read import read_hyperparameters, read_options, with_model_type
from mscvt.dialects.mindspeed.args_written import make_args
from mscvt.dialects.mindspeed.launch import training_flags
from mscvt.errors import Faults, MscvtError
from mscvt.jobs.prepared import Conversion
from mscvt.model.family import Hyperparameters
from mscvt.model.hyperparameters import hyperparameters, pad_vocabulary, read_config
from mscvt.model.layers import select_layers
from mscvt.model.options import Options, check_features, check_values, with_defaults
from mscvt.output.identity import source_identity
from mscvt.parallel.topology import Topology, build_topology
from mscvt.plan.contents import OutputFile
from mscvt.plugins.registry import Family, Registry
from mscvt.tensors.info import TORCH_NAMES

DTYPES: Mapping[str, str] = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}
"""Values of `--dtype` -> safetensors' names."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks for, in either direction."""

    load_dir: Path
    options: Options
    model_type: str | None = None
    dtype: str | None = None
    """A key of `DTYPES`, or None to keep each tensor's own."""
    dequantize: bool = False
    hf_cfg_dir: Path | None = None
    iteration: int | None = None


def prepare_to_megatron(request: Request, registry: Registry) -> Conversion:
    """Plan Hugging Face -> Megatron.

    Raises:
        MscvtError: Where anything at all is wrong with the options, the plugin or the source.
    """
    from mscvt.formats.huggingface.reader import HuggingFaceSource
    from mscvt.formats.megatron_torch.existing import listed_files
    from mscvt.formats.megatron_torch.paths import TRACKER
    from mscvt.formats.megatron_torch.writer import Allocator, write_tracker
    from mscvt.formats.torch_zip.sealing import write_checksums
    from mscvt.plan.to_megatron import ITERATION, plan_to_megatron

    config = read_config(request.load_dir)
    family = registry.family(request.model_type) if request.model_type else registry.recognise(config)
    family, description, h, options = describe_configuration(family, config, request)
    layers = sum(1 for _ in description.topology.place_layers())
    args = make_args(family, h, options, layers, description.kinds)
    source = HuggingFaceSource(request.load_dir, dequantize=request.dequantize)
    try:
        plan = plan_to_megatron(
            description, source.tensors, ignored=family.model_type.ignored, dtype=_dtype_name(request.dtype)
        )
    except MscvtError as error:
        raise _with_better_type(error, config, family, registry) from None
    args["params_dtype"] = TORCH_NAMES[plan.largest_dtype]
    topology = description.topology

    allocator = Allocator(args, ITERATION)

    def allocate(path: Path, file: OutputFile) -> dict[Any, int]:
        parts = [chunk.part for chunk in topology.chunks if chunk.stage == file.labels["pp"]]
        return allocator.allocate(path, file.tensors, parts)

    def seal(path: Path, file: OutputFile, checksums: Mapping[Any, int]) -> None:
        offsets = allocator.offsets(path, file.tensors)
        write_checksums(
            path, {offsets[name]: checksums[name] for name, (_, shape) in file.tensors.items() if prod(shape)}
        )

    return Conversion(
        plan=plan,
        open_source=source.tensor,
        allocate=allocate,
        offsets=lambda path, file: allocator.offsets(path, file.tensors),
        seal=seal,
        finish=lambda folder: write_tracker(folder, ITERATION),
        finishing=(TRACKER,),
        sources=_sources(request),
        listed=lambda folder: listed_files(folder, ITERATION),
        identity=_identity("hf2mg", request, family, source.files, options, config),
        notes=tuple(_left_out_notes(plan.left_out)),
        training_flags=training_flags(options, h, layers),
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


def describe_configuration(
    family: Family, config: Mapping[str, Any], request: Request
) -> tuple[Family, Description, Hyperparameters, Options]:
    """The description of the Megatron side that `config.json` and the options ask for."""
    faults = Faults()
    check_values(request.options, faults)
    faults.raise_if_any("options with impossible values")
    h = hyperparameters(config, family.model_type, request.load_dir / "config.json")
    layers = family.call("mscvt_layers", hyperparameters=h)
    features = family.features_of(layer.kind for layer in layers)
    check_features(request.options, features, family.model_type.name, faults)
    faults.raise_if_any("options that mean nothing to this model")
    options = with_defaults(request.options)
    if options.transformer_impl == "transformer_engine" and options.mtp_num_layers:
        raise MscvtError(
            f"--transformer-impl transformer_engine and --mtp-num-layers {options.mtp_num_layers} can't be combined",
            hint="Leave out one of them.",
        )
    h = pad_vocabulary(h, options.make_vocab_size_divisible_by, options.target_tensor_parallel_size or 1)
    selection = select_layers(layers, options)
    topology = build_topology(options, selection.decoder_count)
    description = describe(family, h, topology, selection)
    return family, description, {**h, "mtp_num_layers": options.mtp_num_layers or 0}, options


def prepare_to_huggingface(request: Request, registry: Registry) -> Conversion:
    """Plan Megatron -> Hugging Face.

    Raises:
        MscvtError: Where anything at all is wrong with the options, the plugin or the source.
    """
    from mscvt.formats.huggingface.config_files import copy_config_files, find_config_files
    from mscvt.formats.huggingface.existing import listed_files
    from mscvt.formats.huggingface.writer import INDEX, allocate, offsets_in, write_index
    from mscvt.formats.megatron_torch.reader import MegatronSource
    from mscvt.plan.to_huggingface import plan_to_huggingface

    faults = Faults()
    check_values(request.options, faults)
    faults.raise_if_any("options with impossible values")
    source = MegatronSource(request.load_dir, request.iteration)
    config = read_config(request.hf_cfg_dir) if request.hf_cfg_dir else None
    config_files = find_config_files(request.hf_cfg_dir) if request.hf_cfg_dir else []
    family, description, h = describe_checkpoint(source.args, config, request, registry)
    topology = description.topology
    source.open_ranks(list(topology.ranks()), *_pipelines_and_experts(topology))
    plan = plan_to_huggingface(description, source.tensors, dtype=_dtype_name(request.dtype))

    def finish(folder: Path) -> None:
        if config is not None:
            copy_config_files(config_files, folder, config, h, family.model_type, TORCH_NAMES[plan.largest_dtype])
        write_index(folder, plan.files)

    return Conversion(
        plan=plan,
        open_source=source.tensor,
        allocate=lambda path, file: allocate(path, file.tensors),
        offsets=lambda path, file: offsets_in(path),
        finish=finish,
        finishing=(INDEX, *(path.name for path in config_files)),
        sources=_sources(request),
        listed=listed_files,
        identity=_identity("mg2hf", request, family, source.files, topology.options, config),
        notes=() if config else ("config.json and the tokenizer are not written; --hf-cfg-dir DIR copies them",),
    )


def describe_checkpoint(
    args: Mapping[str, Any],
    config: Mapping[str, Any] | None,
    request: Request,
    registry: Registry,
    *,
    against_original: bool = False,
) -> tuple[Family, Description, Hyperparameters]:
    """The description of a Megatron checkpoint, from its args and, where given, a `config.json`.

    Args:
        args: The checkpoint's args.
        config: The configuration, or None.
        request: What was asked for.
        registry: The plugins.
        against_original: Whether layers have their numbers in the model that the configuration is of, which
            may have more of them, or those that the way back gives.
    """
    recorded = with_model_type(args)
    name = request.model_type or recorded
    if name is None and config is None:
        raise MscvtError(
            "the checkpoint doesn't say what model it is",
            hint="Give --model-type-hf, or --hf-cfg-dir with its config.json.",
        )
    family = registry.family(name) if name else registry.recognise(config or {})
    if recorded and family.model_type.name != recorded:
        raise MscvtError(
            f"--model-type-hf {family.model_type.name} contradicts the checkpoint, whose args record {recorded}",
            hint="Leave the option out: what args record is the default.",
        )
    if config is not None:
        _check_same_model(config, family, registry)
    options = with_defaults(read_options(args, request.options))
    configured = None
    if config is not None:
        configured = hyperparameters(config, family.model_type, f"{request.hf_cfg_dir}/config.json")
    h = read_hyperparameters(args, family.model_type, options, configured)
    enumerated = configured if against_original and configured else h
    layers = family.call("mscvt_layers", hyperparameters=enumerated)
    fewer = {
        name: h[name]
        for name in ("num_layers", "first_k_dense_replace")
        if name in h and h[name] < enumerated.get(name, h[name])
    }
    selection = select_layers(layers, replace(options, **fewer))
    topology = build_topology(options, selection.decoder_count)
    return family, describe(family, h, topology, selection), h


def _check_same_model(config: Mapping[str, Any], family: Family, registry: Registry) -> None:
    """Refuse a configuration that other families claim and this one does not."""
    said = config.get("model_type")
    claims = [name for name, other in registry.families.items() if said in other.model_type.config_model_types]
    if claims and family.model_type.name not in claims:
        raise MscvtError(
            f"config.json says model_type {said!r}, the checkpoint is {family.model_type.name}",
            hint="Give the folder of this model's configuration.",
        )


def _dtype_name(dtype: str | None) -> str | None:
    return None if dtype is None else DTYPES[dtype]


def _pipelines_and_experts(topology: Topology) -> tuple[int, int]:
    options = topology.options
    return options.target_pipeline_parallel_size or 1, options.target_expert_parallel_size or 1


def _sources(request: Request) -> tuple[Path, ...]:
    """The folders that are read."""
    return tuple(folder for folder in (request.load_dir, request.hf_cfg_dir) if folder is not None)


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
    return {
        "direction": direction,
        "mscvt": __version__,
        "plugin": f"{family.plugin.distribution} {family.plugin.version}",
        "model type": family.model_type.name,
        "options": {name: getattr(options, name) for name in options.__dataclass_fields__},
        "dtype": request.dtype,
        "dequantize": request.dequantize,
        "configuration": configuration,
        "source": source_identity(request.load_dir, files),
    }


def _left_out_notes(left_out: Mapping[str, str]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for name, why in left_out.items():
        reasons.setdefault(why, []).append(name)
    return [f"left out, {why}: {len(names)} tensors, {min(names)} and others" for why, names in sorted(reasons.items())]
