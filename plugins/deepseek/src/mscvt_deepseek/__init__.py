"""DeepSeek V2, V2-Lite, V3 and V3.2: latent attention, shared and routed experts, MTP, a sparse-attention indexer."""

from collections.abc import Sequence

from mscvt import (
    DECODER,
    EXPERT_FIELDS,
    EXPERTS,
    FULL_QUERY,
    INDEXER,
    LATENT_ATTENTION,
    LATENT_FIELDS,
    MTP_COPIES,
    MTP_ENDS,
    NORMS,
    ROUTER_BIAS,
    SHARED_EXPERTS,
    ModelType,
    count,
    hookimpl,
    same,
)

MSCVT_API = 2

V2 = {**DECODER, "attention": NORMS | LATENT_ATTENTION, "moe": EXPERTS | SHARED_EXPERTS}
LITE = {**V2, "attention": NORMS | FULL_QUERY}
V3 = {**V2, "moe": EXPERTS | SHARED_EXPERTS | ROUTER_BIAS, "mtp": MTP_ENDS | MTP_COPIES}
V32 = {**V3, "attention": NORMS | LATENT_ATTENTION | INDEXER}

LITE_FIELDS = {**EXPERT_FIELDS, **LATENT_FIELDS, "moe_layer_freq": count("moe_layer_freq", default=1)}
FIELDS = {**LITE_FIELDS, **same(count, "q_lora_rank")}
V32_FIELDS = {**FIELDS, **same(count, "index_n_heads", "index_head_dim", "index_topk")}
V32_REFUSED = {"dialect": "models have an indexer, whose names in megatron-core are not known"}
V32_ARGS = {"enable_dsa_indexer": True}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve the four; V2 and V2-Lite share a `model_type` and differ in the rank of the query."""
    return [
        ModelType("deepseek2", ("deepseek_v2",), FIELDS, names=V2),
        ModelType("deepseek2-lite", ("deepseek_v2",), LITE_FIELDS, lambda c: c.get("q_lora_rank") is None, names=LITE),
        ModelType("deepseek3", ("deepseek_v3",), FIELDS, names=V3),
        ModelType("deepseek32", ("deepseek_v32",), V32_FIELDS, names=V32, refused=V32_REFUSED, args=V32_ARGS),
    ]
