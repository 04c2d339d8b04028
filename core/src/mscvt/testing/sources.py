"""The Hugging Face checkpoint that a `config.json` asks for: every tensor's name, shape and content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mscvt.description.description import Description
from mscvt.dialects.options import Options
from mscvt.formats.huggingface.reader import HuggingFaceSource
from mscvt.jobs.models import model_from_config
from mscvt.model.family import Hyperparameters, Layer
from mscvt.model.hyperparameters import hyperparameters, model_fields
from mscvt.plan.by_huggingface import uses_by_name
from mscvt.plugins.family import Family
from mscvt.testing.checkpoints import content


def sizes_of(family: Family, config: Mapping[str, Any]) -> Hyperparameters:
    """The hyperparameters that a `config.json` says."""
    return hyperparameters(family.respelled(config), family.model_type, "config.json")


def layers_of(family: Family, config: Mapping[str, Any]) -> tuple[Layer, ...]:
    """The layers of a configuration, MTP layers included."""
    return family.layers(sizes_of(family, config))


def mtp_layers(family: Family, config: Mapping[str, Any]) -> int:
    """How many MTP layers a configuration has; 0 for a family without any."""
    return sum(layer.mtp is not None for layer in layers_of(family, config))


def without_mtp(family: Family, config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the same model without its MTP layers, which transformers' classes don't have."""
    entry = model_fields(family.model_type).get("mtp_num_layers")
    paths = entry.paths if entry is not None else ()
    return {**{name: 0 if name in paths else value for name, value in config.items()}, **dict.fromkeys(paths[:1], 0)}


def features_of(family: Family, config: Mapping[str, Any]) -> frozenset[str]:
    """The first words of the roles that a configuration's layers have: `attention`, `moe`, `mtp`, ..."""
    h = sizes_of(family, config)
    return frozenset(role.partition(".")[0] for role in family.roles(family.layers(h), h))


def describe_whole(family: Family, config: Mapping[str, Any]) -> Description:
    """The description of the whole model, MTP layers included, on one rank."""
    options = Options(mtp_num_layers=mtp_layers(family, config))
    return model_from_config(family, config, options, "config.json").description


def source_shapes(family: Family, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor that a public checkpoint of this configuration has."""
    description = describe_whole(family, config)
    shapes = {name: uses[0].side.shape for name, uses in uses_by_name(description).items()}
    repeats = {name: shapes[alias.of] for name, alias in description.aliases.items() if alias.is_written}
    return shapes | repeats


def source_tensors(family: Family, config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Those tensors with bytes of their own: bf16, and f32 where `--dtype` must leave a tensor alone."""
    description = describe_whole(family, config)
    uses, aliases = uses_by_name(description), description.aliases
    tensors = {}
    for name, shape in source_shapes(family, config).items():
        original = aliases[name].of if name in aliases else name
        keeps_dtype = any(use.parameter.keeps_dtype for use in uses[original])
        tensors[name] = content(original, shape, "F32" if keeps_dtype else "BF16")
    return tensors


def one_name_per_role(family: Family, config: Mapping[str, Any]) -> dict[str, str]:
    """Role -> the first tensor that plays it."""
    found: dict[str, str] = {}
    for name, uses in uses_by_name(describe_whole(family, config)).items():
        for use in uses:
            found.setdefault(use.side.name, name)
    return found


def shapes_in(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in the Hugging Face checkpoint of a folder."""
    return {name: info.shape for name, info in HuggingFaceSource(folder).tensors.items()}
