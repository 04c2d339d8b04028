"""DeepSeek V2, V2-Lite, V3 and V3.2: latent attention, shared and routed experts, MTP, a sparse-attention indexer."""

from collections.abc import Mapping, Sequence
from typing import Any

from mscvt import (
    DECODER,
    DENSE,
    EXPERTS,
    FULL_QUERY,
    INDEXER,
    LATENT_ATTENTION,
    MOE,
    MTP_COPIES,
    MTP_ENDS,
    NORMS,
    ROUTER_BIAS,
    SHARED_EXPERTS,
    Hyperparameters,
    Layer,
    ModelType,
    count,
    hookimpl,
)

MSCVT_API = 2

_V2 = {**DECODER, "attention": NORMS | LATENT_ATTENTION, "moe": EXPERTS | SHARED_EXPERTS}
_V3 = {**_V2, "moe": EXPERTS | SHARED_EXPERTS | ROUTER_BIAS, "mtp": MTP_ENDS | MTP_COPIES}
BLOCKS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "deepseek2": _V2,
    "deepseek2-lite": {**_V2, "attention": NORMS | FULL_QUERY},
    "deepseek3": _V3,
    "deepseek32": {**_V3, "attention": NORMS | LATENT_ATTENTION | INDEXER},
}

_FIELDS = {
    "num_experts": count("n_routed_experts", "num_experts", "num_local_experts"),
    "n_shared_experts": count("n_shared_experts"),
    "moe_intermediate_size": count("moe_intermediate_size"),
    "first_k_dense_replace": count("first_k_dense_replace", least=0),
    "moe_layer_freq": count("moe_layer_freq", default=1),
    "kv_lora_rank": count("kv_lora_rank"),
    "qk_nope_head_dim": count("qk_nope_head_dim"),
    "qk_rope_head_dim": count("qk_rope_head_dim"),
    "v_head_dim": count("v_head_dim"),
}
_Q_RANK = {"q_lora_rank": count("q_lora_rank")}
_MTP_LAYERS = {"mtp_num_layers": count("num_nextn_predict_layers", default=0, least=0)}
_INDEXER_SIZES = {name: count(name) for name in ("index_n_heads", "index_head_dim", "index_topk")}


def _has_query_rank(config: Mapping[str, Any]) -> bool:
    return config.get("q_lora_rank") is not None


def _lacks_query_rank(config: Mapping[str, Any]) -> bool:
    return not _has_query_rank(config)


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve the four; V2 and V2-Lite share a `model_type` and differ in the rank of the query."""
    third = _FIELDS | _Q_RANK | _MTP_LAYERS
    return [
        ModelType("deepseek2", ("deepseek_v2",), _FIELDS | _Q_RANK, _has_query_rank),
        ModelType("deepseek2-lite", ("deepseek_v2",), _FIELDS, _lacks_query_rank),
        ModelType("deepseek3", ("deepseek_v3",), third),
        ModelType(
            "deepseek32",
            ("deepseek_v32",),
            third | _INDEXER_SIZES,
            refused={"dialect": "models have an indexer, whose names in megatron-core are not known"},
            args={"enable_dsa_indexer": True},
        ),
    ]


@hookimpl
def mscvt_names(model_type: str, block: str) -> Mapping[str, str] | None:
    """An MTP layer repeats the embedding and the head under names of its own."""
    return BLOCKS[model_type].get(block)


@hookimpl
def mscvt_layers(hyperparameters: Hyperparameters) -> Sequence[Layer]:
    """Dense layers first, then every `moe_layer_freq`-th with experts; MTP layers follow the last one."""
    size, dense = hyperparameters["num_layers"], hyperparameters["first_k_dense_replace"]
    step = hyperparameters["moe_layer_freq"]
    layers = [Layer(i, DENSE if i < dense or i % step else MOE) for i in range(size)]
    return layers + [Layer(size + m, MOE, mtp=m) for m in range(hyperparameters.get("mtp_num_layers", 0))]
