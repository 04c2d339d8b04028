"""DeepSeek V2, V2-Lite, V3 and V3.2: latent attention, shared and routed experts, MTP, a sparse-attention indexer."""

from collections.abc import Mapping, Sequence
from typing import Any

from mscvt import (
    DECODER,
    DENSE,
    MODEL,
    MOE,
    MTP,
    Hyperparameters,
    Layer,
    ModelType,
    Rule,
    field_at,
    hookimpl,
    whole,
)

MSCVT_API = 1

_LAYER = "model.layers.{layer}."
_ATTENTION = _LAYER + "self_attn."
_COMMON = {
    "norm.input": _LAYER + "input_layernorm.weight",
    "norm.pre_mlp": _LAYER + "post_attention_layernorm.weight",
    "mla.kv_down": _ATTENTION + "kv_a_proj_with_mqa.weight",
    "mla.kv_norm": _ATTENTION + "kv_a_layernorm.weight",
    "mla.kv_up": _ATTENTION + "kv_b_proj.weight",
    "mla.proj": _ATTENTION + "o_proj.weight",
}
_FULL_QUERY = {"mla.q_down": _ATTENTION + "q_proj.weight"}
_LOW_RANK_QUERY = {
    "mla.q_down": _ATTENTION + "q_a_proj.weight",
    "mla.q_norm": _ATTENTION + "q_a_layernorm.weight",
    "mla.q_up": _ATTENTION + "q_b_proj.weight",
}
_INDEXER = {
    "indexer.k_norm": _ATTENTION + "indexer.k_norm.weight",
    "indexer.k_norm_bias": _ATTENTION + "indexer.k_norm.bias",
    "indexer.weights": _ATTENTION + "indexer.weights_proj.weight",
    "indexer.k": _ATTENTION + "indexer.wk.weight",
    "indexer.q": _ATTENTION + "indexer.wq_b.weight",
}
_MLP = {f"mlp.{part}": f"{_LAYER}mlp.{part}_proj.weight" for part in ("gate", "up", "down")}
_EXPERTS = {
    "moe.router": _LAYER + "mlp.gate.weight",
    **{f"moe.shared.{part}": f"{_LAYER}mlp.shared_experts.{part}_proj.weight" for part in ("gate", "up", "down")},
    **{f"moe.expert.{part}": f"{_LAYER}mlp.experts.{{expert}}.{part}_proj.weight" for part in ("gate", "up", "down")},
}
_ROUTER_BIAS = {"moe.router_bias": _LAYER + "mlp.gate.e_score_correction_bias"}
_MTP = {
    "mtp.embedding_norm": _LAYER + "enorm.weight",
    "mtp.hidden_norm": _LAYER + "hnorm.weight",
    "mtp.proj": _LAYER + "eh_proj.weight",
    "mtp.final_norm": _LAYER + "shared_head.norm.weight",
    "embedding": _LAYER + "embed_tokens.weight",
    "head": _LAYER + "shared_head.head.weight",
}

_V2 = _COMMON | _LOW_RANK_QUERY
_LITE = _COMMON | _FULL_QUERY
_V32 = _V2 | _INDEXER
NAMES: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "deepseek2": {DENSE: _V2 | _MLP, MOE: _V2 | _EXPERTS},
    "deepseek2-lite": {DENSE: _LITE | _MLP, MOE: _LITE | _EXPERTS},
    "deepseek3": {DENSE: _V2 | _MLP, MOE: _V2 | _EXPERTS | _ROUTER_BIAS, MTP: _MTP},
    "deepseek32": {DENSE: _V32 | _MLP, MOE: _V32 | _EXPERTS | _ROUTER_BIAS, MTP: _MTP},
}

_FIELDS = {
    "num_experts": field_at("n_routed_experts", "num_experts", "num_local_experts"),
    "n_shared_experts": field_at("n_shared_experts"),
    "moe_intermediate_size": field_at("moe_intermediate_size"),
    "first_k_dense_replace": field_at("first_k_dense_replace"),
    "moe_layer_freq": field_at("moe_layer_freq", default=1),
    "kv_lora_rank": field_at("kv_lora_rank"),
    "qk_nope_head_dim": field_at("qk_nope_head_dim"),
    "qk_rope_head_dim": field_at("qk_rope_head_dim"),
    "v_head_dim": field_at("v_head_dim"),
}
_Q_RANK = {"q_lora_rank": field_at("q_lora_rank")}
_MTP_LAYERS = {"mtp_num_layers": field_at("num_nextn_predict_layers", default=0)}
_INDEXER_SIZES = {name: field_at(name) for name in ("index_n_heads", "index_head_dim", "index_topk")}


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
        ModelType("deepseek32", ("deepseek_v32",), third | _INDEXER_SIZES, args={"enable_dsa_indexer": True}),
    ]


@hookimpl
def mscvt_names(model_type: str, kind: str) -> Mapping[str, str] | None:
    """An MTP layer repeats the embedding and the head under names of its own."""
    return DECODER[MODEL] if kind == MODEL else NAMES[model_type].get(kind)


@hookimpl
def mscvt_layers(hyperparameters: Hyperparameters) -> Sequence[Layer]:
    """Dense layers first, then every `moe_layer_freq`-th with experts; MTP layers follow the last one."""
    count, dense = hyperparameters["num_layers"], hyperparameters["first_k_dense_replace"]
    step = hyperparameters["moe_layer_freq"]
    layers = [Layer(i, DENSE if i < dense or i % step else MOE) for i in range(count)]
    return layers + [Layer(count + m, MOE, mtp=m) for m in range(hyperparameters.get("mtp_num_layers", 0))]


@hookimpl
def mscvt_split_rules(model_type: str) -> Sequence[Rule]:
    """The sparse-attention indexer of V3.2 is the same on every rank."""
    if model_type != "deepseek32":
        return ()
    prefix = "self_attention.dsa_indexer."
    return (
        whole(prefix + "k_norm.weight", "indexer.k_norm", "index_head_dim", keeps_dtype=True),
        whole(prefix + "k_norm.bias", "indexer.k_norm_bias", "index_head_dim", keeps_dtype=True),
        whole(prefix + "weights_proj.weight", "indexer.weights", "index_n_heads hidden"),
        whole(prefix + "wk.weight", "indexer.k", "index_head_dim hidden"),
        whole(prefix + "wq_b.weight", "indexer.q", "(index_n_heads index_head_dim) q_rank"),
    )
