"""The usual names of tensors inside a layer and outside of the layers, as transformers' models have them, by role."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType

_ATTENTION = r"(?:self_attn|self_attention|attention|attn)\."
_MOE = r"(?:mlp|block_sparse_moe|feed_forward|moe|ffn)\."
_MLP = r"(?:mlp|feed_forward|ffn)\."
_EXPERT = rf"{_MOE}experts\.\{{expert\}}\."
_SHARED = rf"{_MOE}(?:shared_experts?|shared_mlp)\."
_GATE, _UP, _DOWN = "(?:gate_proj|w1)", "(?:up_proj|w3)", "(?:down_proj|w2)"

_LAYER: Mapping[str, str] = MappingProxyType(
    {
        "norm.input": "input_layernorm|input_norm|attention_norm|attn_norm|ln_1",
        "norm.pre_mlp": "post_attention_layernorm|pre_feedforward_layernorm|pre_mlp_layernorm|ffn_norm|ln_2",
        "norm.post_attention": "post_self_attn_layernorm|post_attn_norm",
        "norm.post_mlp": "post_feedforward_layernorm|post_mlp_layernorm",
        "attention.q": rf"{_ATTENTION}(?:q_proj|wq|query)",
        "attention.k": rf"{_ATTENTION}(?:k_proj|wk|key)",
        "attention.v": rf"{_ATTENTION}(?:v_proj|wv|value)",
        "attention.qkv": rf"{_ATTENTION}(?:qkv_proj|query_key_value|W_pack|wqkv)",
        "attention.q_norm": rf"{_ATTENTION}(?:q_norm|q_layernorm|query_layernorm)",
        "attention.k_norm": rf"{_ATTENTION}(?:k_norm|k_layernorm|key_layernorm)",
        "attention.proj": rf"{_ATTENTION}(?:o_proj|wo|out_proj|dense)",
        "mla.q_down": rf"{_ATTENTION}q_a_proj",
        "mla.q_norm": rf"{_ATTENTION}q_a_layernorm",
        "mla.q_up": rf"{_ATTENTION}q_b_proj",
        "mla.kv_down": rf"{_ATTENTION}kv_a_proj_with_mqa",
        "mla.kv_norm": rf"{_ATTENTION}kv_a_layernorm",
        "mla.kv_up": rf"{_ATTENTION}kv_b_proj",
        "mlp.gate": rf"{_MLP}{_GATE}",
        "mlp.up": rf"{_MLP}(?:{_UP}|c_fc|fc1)",
        "mlp.gate_up": rf"{_MLP}gate_up_proj",
        "mlp.down": rf"{_MLP}(?:{_DOWN}|c_proj|fc2)",
        "moe.router": rf"{_MOE}(?:gate|router|router\.layer|router\.gate|gate\.wg)",
        "moe.router_bias": rf"{_MOE}(?:(?:gate|router|moe_statics)\.)?(?:e_score_correction_bias|expert_bias)",
        "moe.shared_gate": rf"{_MOE}shared_expert_gate",
        "moe.shared.gate": rf"{_SHARED}{_GATE}",
        "moe.shared.up": rf"{_SHARED}{_UP}",
        "moe.shared.gate_up": rf"{_SHARED}(?:gate_up_proj|input_linear)",
        "moe.shared.down": rf"{_SHARED}(?:{_DOWN}|output_linear)",
        "moe.expert.gate": rf"{_EXPERT}{_GATE}",
        "moe.expert.up": rf"{_EXPERT}{_UP}",
        "moe.expert.gate_up": rf"{_EXPERT}gate_up_proj|{_MOE}experts\.gate_up_proj|{_MOE}input_linear",
        "moe.expert.down": rf"{_EXPERT}{_DOWN}|{_MOE}experts\.down_proj|{_MOE}output_linear",
        "mtp.embedding_norm": "enorm",
        "mtp.hidden_norm": "hnorm",
        "mtp.proj": "eh_proj",
        "mtp.final_norm": r"shared_head\.norm",
        "embedding": "embed_tokens",
        "head": r"shared_head\.head",
    }
)
"""Role -> what stands after the layer's number and before `.weight` or `.bias`."""
_ENDS: Mapping[str, str] = MappingProxyType(
    {
        "embedding": "embed_tokens|wte|word_embeddings|tok_embeddings|embed_in",
        "norm.final": "norm|ln_f|final_layernorm|final_layer_norm",
        "head": "lm_head|output|output_layer|embed_out",
    }
)
"""Role -> the last words of a name outside of the layers."""
_BIASED = frozenset(
    {"attention.q", "attention.k", "attention.v", "attention.proj", "norm.input", "norm.pre_mlp"}
    | {"mlp.gate", "mlp.up", "mlp.gate_up", "mlp.down"}
)
_BIASED_ENDS = frozenset({"norm.final", "head"})
_ATTENTION_OF_LATENT = MappingProxyType({"attention.q": "mla.q_down", "attention.proj": "mla.proj"})
"""What the names of plain attention mean in a layer with latent attention."""


def role_in_layer(suffix: str, others: Collection[str]) -> str | None:
    """The role of a tensor by its name.

    Args:
        suffix: What stands after the layer's number, with `{expert}` in place of a second number.
        others: All suffixes of the model's layers, because a few names mean different things beside others.
    """
    stem, kind = _taken_apart(suffix)
    role = _lookup(_LAYER, stem)
    if role == "norm.pre_mlp" and stem == "post_attention_layernorm" and _has(others, "feedforward_layernorm"):
        role = "norm.post_attention"
    if role is not None and role in _ATTENTION_OF_LATENT and _has(others, "kv_a_proj_with_mqa"):
        role = _ATTENTION_OF_LATENT[role]
    return _with_bias(role, kind, _BIASED)


def role_of_end(name: str) -> str | None:
    """The role of a tensor outside of the layers, by its last words."""
    stem, kind = _taken_apart(name)
    return _with_bias(_lookup(_ENDS, stem.rpartition(".")[2]), kind, _BIASED_ENDS)


def _taken_apart(name: str) -> tuple[str, str]:
    stem, _, kind = name.rpartition(".")
    return (stem, kind) if kind in ("weight", "bias") and stem else (name, "weight")


def _lookup(table: Mapping[str, str], stem: str) -> str | None:
    return next((role for role, pattern in table.items() if re.fullmatch(pattern, stem)), None)


def _with_bias(role: str | None, kind: str, biased: frozenset[str]) -> str | None:
    if role is None or kind == "weight":
        return role
    return f"{role}_bias" if role in biased else None


def _has(others: Collection[str], words: str) -> bool:
    return any(words in other for other in others)
