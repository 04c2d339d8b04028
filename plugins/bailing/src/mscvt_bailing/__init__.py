"""Ling 2.0 and Ring 2.0: packed grouped-query attention with a norm on each head, dense layers, then experts."""

from collections.abc import Mapping, Sequence
from typing import Any

from mscvt import (
    DECODER,
    EXPERT_FIELDS,
    EXPERTS,
    MTP_ENDS,
    NORMS,
    SHARED_EXPERTS,
    Hyperparameters,
    Layer,
    ModelType,
    count,
    hookimpl,
    number,
)

MSCVT_API = 2

_LAYER = "model.layers.{layer}."
BLOCKS = {
    **DECODER,
    "model": DECODER["model"] | {"embedding": "model.word_embeddings.weight"},
    "attention": NORMS
    | {
        "attention.qkv": _LAYER + "attention.query_key_value.weight",
        "attention.q_norm": _LAYER + "attention.query_layernorm.weight",
        "attention.k_norm": _LAYER + "attention.key_layernorm.weight",
        "attention.proj": _LAYER + "attention.dense.weight",
    },
    "moe": EXPERTS | SHARED_EXPERTS | {"moe.router_bias": _LAYER + "mlp.gate.expert_bias"},
    "mtp": MTP_ENDS | {"mtp.final_norm": _LAYER + "final_layernorm.weight"},
}
FIELDS = {
    **EXPERT_FIELDS,
    "n_group": count("n_group", default=None),
    "topk_group": count("topk_group", default=None),
    "rotary_dim": count("rotary_dim", default=None),
    "partial_rotary_factor": number("partial_rotary_factor", "rope_parameters.partial_rotary_factor", default=None),
}


def _is_second_generation(config: Mapping[str, Any]) -> bool:
    """Ling-lite and -plus have the same `model_type` and other tensors."""
    return "BailingMoeForCausalLM" not in (config.get("architectures") or ())


def _args(h: Hyperparameters, _layers: Sequence[Layer]) -> Mapping[str, Any]:
    return {
        "moe_layer_freq": 1,
        "moe_router_enable_expert_bias": True,
        "num_shared_experts": h["n_shared_experts"],
        "moe_shared_expert_intermediate_size": h["n_shared_experts"] * h["moe_intermediate_size"],
    }


def _flags(h: Hyperparameters) -> Sequence[str]:
    part = h.get("partial_rotary_factor")
    if part is None and h.get("rotary_dim"):
        part = h["rotary_dim"] / h["kv_channels"]
    return [] if part is None else [f"--rotary-percent {part}"]


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `bailing_mini`, which is all sizes of the second generation."""
    return [ModelType("bailing_mini", ("bailing_moe",), FIELDS, _is_second_generation, args=_args, flags=_flags)]


@hookimpl
def mscvt_names(block: str) -> Mapping[str, str] | None:
    """Queries, keys and values are one tensor; an MTP layer has no embedding and no head of its own."""
    return BLOCKS.get(block)
