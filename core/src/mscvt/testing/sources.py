"""The Hugging Face checkpoint that a `config.json` asks for: every tensor's name, shape and content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mscvt.description.description import Description
from mscvt.dialects.mindspeed.options import Options
from mscvt.formats.huggingface.reader import HuggingFaceSource
from mscvt.jobs.prepare import Request, describe_configuration
from mscvt.model.hyperparameters import hyperparameters
from mscvt.plan.proof import huggingface_shape, uses_by_name
from mscvt.plugins.registry import Family
from mscvt.testing.checkpoints import content


def mtp_layers(family: Family, config: Mapping[str, Any]) -> int:
    """How many MTP layers a configuration has; 0 for a family without any."""
    return int(hyperparameters(config, family.model_type, "config.json").get("mtp_num_layers") or 0)


def describe_whole(family: Family, config: Mapping[str, Any]) -> Description:
    """The description of the whole model, MTP layers included, on one rank."""
    options = Options(mtp_num_layers=mtp_layers(family, config))
    return describe_configuration(family, config, Request(Path("config.json").parent, options))[1]


def source_shapes(family: Family, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor that a public checkpoint of this configuration has."""
    description = describe_whole(family, config)
    shapes = {name: huggingface_shape(uses[0]) for name, uses in uses_by_name(description.parameters).items()}
    repeats = {name: shapes[alias.of] for name, alias in description.aliases.items() if alias.is_written}
    return shapes | repeats


def source_tensors(family: Family, config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Those tensors with bytes of their own: bf16, and f32 where `--dtype` must leave a tensor alone."""
    description = describe_whole(family, config)
    uses, aliases = uses_by_name(description.parameters), description.aliases
    tensors = {}
    for name, shape in source_shapes(family, config).items():
        original = aliases[name].of if name in aliases else name
        keeps_dtype = any(parameter.keeps_dtype for parameter, _ in uses[original])
        tensors[name] = content(original, shape, "F32" if keeps_dtype else "BF16")
    return tensors


def one_name_per_role(family: Family, config: Mapping[str, Any]) -> dict[str, str]:
    """Role -> the first tensor that plays it."""
    found: dict[str, str] = {}
    for parameter in describe_whole(family, config).parameters:
        for (role, _), name in zip(parameter.resolved.sources, parameter.names, strict=True):
            if name is not None and not parameter.is_copy:
                found.setdefault(role, name)
    return found


def shapes_in(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in the Hugging Face checkpoint of a folder."""
    return {name: info.shape for name, info in HuggingFaceSource(folder).tensors.items()}
