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
    ModelType,
    count,
    hookimpl,
    in_layers,
    number,
    same,
)

MSCVT_API = 2

ATTENTION = {
    "attention.qkv": "attention.query_key_value.weight",
    "attention.q_norm": "attention.query_layernorm.weight",
    "attention.k_norm": "attention.key_layernorm.weight",
    "attention.proj": "attention.dense.weight",
}
NAMES = {
    **DECODER,
    "model": DECODER["model"] | {"embedding": "model.word_embeddings.weight"},
    "attention": NORMS | in_layers(ATTENTION),
    "moe": EXPERTS | SHARED_EXPERTS | in_layers({"moe.router_bias": "mlp.gate.expert_bias"}),
    "mtp": MTP_ENDS | in_layers({"mtp.final_norm": "final_layernorm.weight"}),
}
FIELDS = {
    **EXPERT_FIELDS,
    **same(count, "n_group", "topk_group", default=None),
    "num_shared_experts": EXPERT_FIELDS["n_shared_experts"],
    "partial_rotary_factor": number("partial_rotary_factor", "rope_parameters.partial_rotary_factor", default=None),
}
ARGS = {"moe_layer_freq": 1, "moe_router_enable_expert_bias": True}


def _is_second_generation(config: Mapping[str, Any]) -> bool:
    """Ling-lite and -plus have the same `model_type` and other tensors."""
    return "BailingMoeForCausalLM" not in (config.get("architectures") or ())


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `bailing_mini`, which is all sizes of the second generation."""
    return [ModelType("bailing_mini", ("bailing_moe",), FIELDS, _is_second_generation, names=NAMES, args=ARGS)]
