"""A small configuration for a plugin's tests, made from the `config.json` of a real model."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from types import MappingProxyType
from typing import Any

from mscvt.model.fields import DECODER_FIELDS, Field, is_whole
from mscvt.model.hyperparameters import lookup

_LAYERS, _HEADS, _GROUPS, _CHANNELS = 4, 12, 4, 8
_SIZES: Mapping[str, int] = MappingProxyType(
    {
        "num_layers": _LAYERS,
        "ffn_hidden_size": 56,
        "num_attention_heads": _HEADS,
        "kv_channels": _CHANNELS,
        "vocab_size": 90,
        "seq_length": 64,
        "num_experts": 8,
        "moe_intermediate_size": 14,
        "moe_shared_expert_intermediate_size": 28,
        "n_shared_experts": 2,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 10,
        "q_lora_rank": 18,
        "qk_nope_head_dim": 6,
        "qk_rope_head_dim": 4,
        "v_head_dim": 16,
        "mtp_num_layers": 2,
    }
)
"""Hyperparameter -> its size: what is cut divides by 2, experts by 4, and as few sizes as possible are equal."""
_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "num_experts_per_tok": 2,
        "num_experts_per_token": 2,
        "moe_k": 2,
        "moe_topk": 2,
        "topk_group": 1,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
)
"""Other fields, where they hold a number."""
_NEUTRAL: Mapping[str, float] = MappingProxyType(
    {
        "embedding_multiplier": 1.0,
        "residual_multiplier": 1.0,
        "logits_scaling": 1.0,
        "attention_multiplier": _CHANNELS**-0.5,
    }
)
"""Factors that change what a model computes and no tensor of it: the tests' own arithmetic doesn't know them."""
_UNWANTED = frozenset(
    {
        "_name_or_path",
        "architectures",
        "auto_map",
        "dtype",
        "model_type",
        "qk_head_dim",
        "quantization_config",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)


def small_config(config: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """The configuration of a small model of the same kind, as transformers 5 writes it.

    Args:
        config: The configuration of a real model.
        fields: The fields of its model type.
    """
    small = {name: value for name, value in config.items() if name not in _UNWANTED and _is_simple(value)}
    if "kv_lora_rank" in fields:
        small.pop("head_dim", None)
    every = {**DECODER_FIELDS, **fields}
    layers = lookup(config, every["num_layers"].paths)
    for name, value in small.items():
        if isinstance(value, list) and len(value) == layers:
            small[name] = value[:_LAYERS]
        elif name in _NEUTRAL:
            small[name] = _NEUTRAL[name]
        elif is_whole(value):
            small[name] = _SETTINGS.get(name, value)
            if is_whole(layers) and name.endswith("_layer_end_index"):
                small[name] = _LAYERS - 1
            elif name == "n_group":
                small[name] = min(value, 2)
    sizes = dict(_SIZES)
    groups, heads = (lookup(config, every[name].paths) for name in ("num_query_groups", "num_attention_heads"))
    sizes["num_query_groups"] = _HEADS if groups == heads else _GROUPS
    has_own_heads = "kv_lora_rank" in fields or lookup(config, every["kv_channels"].paths) is not None
    sizes["hidden_size"] = 72 if has_own_heads else _HEADS * _CHANNELS
    for name, entry in every.items():
        for path in entry.paths[::-1]:
            if name in sizes and is_whole(small.get(path)):
                small[path] = sizes[name]
    if small.get("mlp_only_layers"):
        small["mlp_only_layers"] = [0, 2]
    return {"model_type": config.get("model_type"), "dtype": "bfloat16", **small, **_rope(config)}


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Plain rotary embedding with the model's own base: no scaling, which changes no tensor."""
    said = config.get("rope_parameters")
    if isinstance(said, Mapping) and any(isinstance(value, Mapping) for value in said.values()):
        return {"rope_parameters": {name: dict(value) for name, value in said.items() if isinstance(value, Mapping)}}
    theta = lookup(config, DECODER_FIELDS["rotary_base"].paths)
    if theta is None:
        return {}
    plain = {"rope_theta": theta, "rope_type": "default"}
    factor = lookup(config, ("rope_parameters.partial_rotary_factor",))
    return {"rope_parameters": plain | ({} if factor is None else {"partial_rotary_factor": factor})}


def _is_simple(value: Any) -> bool:
    if isinstance(value, list):
        return all(item is None or isinstance(item, (bool, int, str)) for item in value)
    if isinstance(value, float):
        return isfinite(value)
    return value is None or isinstance(value, (bool, int, str))
