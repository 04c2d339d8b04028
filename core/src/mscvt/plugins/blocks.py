"""Roles, and blocks of the names that transformers usually gives them. A plain family is a sum of blocks."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

Names = MappingProxyType[str, str]
"""Role -> Hugging Face tensor name; blocks are joined with `|`."""

ROLES: Mapping[str, str] = MappingProxyType(
    {
        "embedding": "the vocabulary's rows",
        "head": "the output layer; the embedding itself where they are tied",
        "head_bias": "bias of the output layer",
        "norm.final": "the norm after the last layer",
        "norm.final_bias": "its bias",
        "norm.input": "the norm before attention",
        "norm.input_bias": "its bias",
        "norm.pre_mlp": "the norm before the MLP or the experts",
        "norm.pre_mlp_bias": "its bias",
        "norm.post_attention": "a norm of what attention gives, before it is added",
        "norm.post_mlp": "a norm of what the MLP gives, before it is added",
        "attention.q": "query projection, heads in the order of their kv groups",
        "attention.k": "key projection, a head for each kv group",
        "attention.v": "value projection, a head for each kv group",
        "attention.qkv": "the three projections in one tensor: all queries, then all keys, then all values",
        "attention.q_bias": "bias of the query projection",
        "attention.k_bias": "bias of the key projection",
        "attention.v_bias": "bias of the value projection",
        "attention.q_norm": "norm of each query head",
        "attention.k_norm": "norm of each key head",
        "attention.proj": "output projection of attention",
        "attention.proj_bias": "its bias",
        "mlp.gate": "the rows of the MLP that go through the activation",
        "mlp.up": "the rows that the activated ones are multiplied with; in an MLP without a gate those activated",
        "mlp.gate_up": "both in one tensor, gate then up",
        "mlp.down": "back to the hidden size",
        "mlp.gate_bias": "bias of mlp.gate",
        "mlp.up_bias": "bias of mlp.up",
        "mlp.gate_up_bias": "bias of mlp.gate_up",
        "mlp.down_bias": "bias of mlp.down",
        "moe.router": "scores of the experts",
        "moe.router_bias": "what is added to the scores to choose experts; keeps its dtype",
        "moe.shared_gate": "what the shared experts' result is weighted with",
        "moe.shared.gate": "as mlp.gate, of the experts that see every token",
        "moe.shared.up": "as mlp.up, of the same",
        "moe.shared.gate_up": "both in one tensor, gate then up",
        "moe.shared.down": "as mlp.down, of the same",
        "moe.expert.gate": "as mlp.gate, of each expert",
        "moe.expert.up": "as mlp.up, of each expert",
        "moe.expert.gate_up": "both in one tensor, gate then up",
        "moe.expert.down": "as mlp.down, of each expert",
        "mla.q_down": "latent attention: the query's compression, or the whole query where it is not compressed",
        "mla.q_norm": "latent attention: norm of the compressed query",
        "mla.q_up": "latent attention: each head's query, nope then rope rows",
        "mla.kv_down": "latent attention: compression of key and value, then the shared rope rows",
        "mla.kv_norm": "latent attention: norm of the compressed key and value",
        "mla.kv_up": "latent attention: each head's key (nope rows), then its value",
        "mla.proj": "latent attention: output projection",
        "indexer.q": "sparse attention: the indexer's query projection, from the compressed query",
        "indexer.k": "sparse attention: the indexer's key projection",
        "indexer.k_norm": "sparse attention: norm of the indexer's key",
        "indexer.k_norm_bias": "its bias",
        "indexer.weights": "sparse attention: the weight of each of the indexer's heads",
        "mtp.embedding_norm": "multi-token prediction: norm of the next token's embedding",
        "mtp.hidden_norm": "multi-token prediction: norm of the hidden state",
        "mtp.proj": "multi-token prediction: the projection of both, side by side",
        "mtp.final_norm": "multi-token prediction: the norm after the layer",
    }
)
"""Every role that the core knows -> what it is. A family's own roles are those that its own rules speak of."""

_LAYER = "model.layers.{layer}."


def in_layers(names: Mapping[str, str], prefix: str = _LAYER) -> dict[str, str]:
    """Role -> name of tensors of a layer, whose names are given without what they all begin with."""
    return {role: prefix + name for role, name in names.items()}


def gated_mlp(role: str, module: str, names: str = "gate_proj up_proj down_proj") -> dict[str, str]:
    """The names of a gated MLP: `gated_mlp("mlp", "model.layers.{layer}.mlp.")`."""
    parts = zip(("gate", "up", "down"), names.split(), strict=True)
    return {f"{role}.{part}": f"{module}{name}.weight" for part, name in parts}


ENDS: Names = MappingProxyType(
    {"embedding": "model.embed_tokens.weight", "norm.final": "model.norm.weight", "head": "lm_head.weight"}
)
"""Outside of the layers."""

NORMS: Names = MappingProxyType(
    {
        "norm.input": _LAYER + "input_layernorm.weight",
        "norm.pre_mlp": _LAYER + "post_attention_layernorm.weight",
    }
)

ATTENTION: Names = MappingProxyType(
    {
        "attention.q": _LAYER + "self_attn.q_proj.weight",
        "attention.k": _LAYER + "self_attn.k_proj.weight",
        "attention.v": _LAYER + "self_attn.v_proj.weight",
        "attention.proj": _LAYER + "self_attn.o_proj.weight",
    }
)

QK_NORM: Names = MappingProxyType(
    {
        "attention.q_norm": _LAYER + "self_attn.q_norm.weight",
        "attention.k_norm": _LAYER + "self_attn.k_norm.weight",
    }
)

QKV_BIAS: Names = MappingProxyType(
    {f"attention.{name}_bias": f"{_LAYER}self_attn.{name}_proj.bias" for name in ("q", "k", "v")}
)

PROJ_BIAS: Names = MappingProxyType({"attention.proj_bias": _LAYER + "self_attn.o_proj.bias"})

LATENT_ATTENTION: Names = MappingProxyType(
    {
        "mla.q_down": _LAYER + "self_attn.q_a_proj.weight",
        "mla.q_norm": _LAYER + "self_attn.q_a_layernorm.weight",
        "mla.q_up": _LAYER + "self_attn.q_b_proj.weight",
        "mla.kv_down": _LAYER + "self_attn.kv_a_proj_with_mqa.weight",
        "mla.kv_norm": _LAYER + "self_attn.kv_a_layernorm.weight",
        "mla.kv_up": _LAYER + "self_attn.kv_b_proj.weight",
        "mla.proj": _LAYER + "self_attn.o_proj.weight",
    }
)

FULL_QUERY: Names = MappingProxyType(
    {
        **{role: name for role, name in LATENT_ATTENTION.items() if role not in ("mla.q_norm", "mla.q_up")},
        "mla.q_down": _LAYER + "self_attn.q_proj.weight",
    }
)
"""Latent attention without compression of the query."""

_INDEXER = _LAYER + "self_attn.indexer."
INDEXER: Names = MappingProxyType(
    {
        "indexer.q": _INDEXER + "wq_b.weight",
        "indexer.k": _INDEXER + "wk.weight",
        "indexer.k_norm": _INDEXER + "k_norm.weight",
        "indexer.k_norm_bias": _INDEXER + "k_norm.bias",
        "indexer.weights": _INDEXER + "weights_proj.weight",
    }
)
"""Sparse attention's choice of the tokens to attend to, beside latent attention."""

MLP: Names = MappingProxyType(gated_mlp("mlp", _LAYER + "mlp."))

MLP_BIAS: Names = MappingProxyType(
    {f"mlp.{part}_bias": f"{_LAYER}mlp.{part}_proj.bias" for part in ("gate", "up", "down")}
)

EXPERTS: Names = MappingProxyType(
    {
        "moe.router": _LAYER + "mlp.gate.weight",
        **gated_mlp("moe.expert", _LAYER + "mlp.experts.{expert}."),
    }
)
"""The router and one tensor for each matrix of each expert."""

_SPARSE = _LAYER + "block_sparse_moe."

SPARSE_EXPERTS: Names = MappingProxyType(
    {
        "moe.router": _SPARSE + "gate.weight",
        **gated_mlp("moe.expert", _SPARSE + "experts.{expert}.", "w1 w3 w2"),
    }
)
"""The same under the older names."""

SHARED_EXPERTS: Names = MappingProxyType(gated_mlp("moe.shared", _LAYER + "mlp.shared_experts."))

GATED_SHARED_EXPERT: Names = MappingProxyType(
    {
        "moe.shared_gate": _LAYER + "mlp.shared_expert_gate.weight",
        **gated_mlp("moe.shared", _LAYER + "mlp.shared_expert."),
    }
)
"""One shared expert, whose result is weighted."""

ROUTER_BIAS: Names = MappingProxyType({"moe.router_bias": _LAYER + "mlp.gate.e_score_correction_bias"})

MTP_ENDS: Names = MappingProxyType(
    {
        "mtp.embedding_norm": _LAYER + "enorm.weight",
        "mtp.hidden_norm": _LAYER + "hnorm.weight",
        "mtp.proj": _LAYER + "eh_proj.weight",
        "mtp.final_norm": _LAYER + "shared_head.norm.weight",
    }
)
"""What an MTP layer has besides the decoder layer in it."""

MTP_COPIES: Names = MappingProxyType(
    {"embedding": _LAYER + "embed_tokens.weight", "head": _LAYER + "shared_head.head.weight"}
)
"""Tensors of the ends that a checkpoint repeats in each MTP layer."""

DECODER: Mapping[str, Names] = MappingProxyType(
    {"model": ENDS, "attention": MappingProxyType({**NORMS, **ATTENTION}), "mlp": MLP}
)
"""Block -> names of a plain pre-norm decoder with gated MLP."""
