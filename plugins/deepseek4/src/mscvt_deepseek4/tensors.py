"""The tensors of DeepSeek-V4: role, name in a release, and the key and axes in training."""

from collections.abc import Mapping
from typing import NamedTuple


class Own(NamedTuple):
    """A tensor that the dialect has no rule for; `cut` is the axis that tensor parallel ranks divide."""

    role: str
    name: str
    key: str
    axes: str
    cut: str = ""
    is_float32: bool = False
    """Whether training keeps it in float32."""


def _compressor(role: str, name: str, key: str, ratio: str, width: str, channels: str) -> tuple[Own, ...]:
    return (
        Own(f"{role}.ape", f"{name}.ape", f"{key}.ape", f"{ratio} {width}", is_float32=True),
        Own(f"{role}.norm", f"{name}.norm.weight", f"{key}.norm.weight", channels),
        *(Own(f"{role}.{w}", f"{name}.{w}.weight", f"{key}.{w}.weight", f"{width} hidden") for w in ("wgate", "wkv")),
    )


def _connection(role: str, name: str, key: str, rows: str, scales: str) -> tuple[Own, ...]:
    return (
        Own(f"{role}.base", f"{name}_base", f"{key}.hc_base", rows, is_float32=True),
        Own(f"{role}.fn", f"{name}_fn", f"{key}.hc_fn.weight", f"{rows} connected", is_float32=True),
        Own(f"{role}.scale", f"{name}_scale", f"{key}.hc_scale", scales, is_float32=True),
    )


_AT = "self_attention."
_Q, _OUT = "(head head_dim) q_lora_rank", "(o_groups o_lora_rank)"
OWN: Mapping[str, tuple[Own, ...]] = {
    "model": (
        Own("norm.final", "norm.weight", "final_layernorm.weight", "hidden"),
        *_connection("connection.head", "hc_head", "hc_head", "hc_mult", "one"),
    ),
    "attention": (
        Own("attention.sink", "attn.attn_sink", f"{_AT}attn_sink", "head", "head", is_float32=True),
        Own("attention.q_down", "attn.wq_a.weight", f"{_AT}linear_q.weight", "q_lora_rank hidden"),
        Own("attention.q_norm", "attn.q_norm.weight", f"{_AT}q_layernorm.weight", "q_lora_rank"),
        Own(
            "attention.q_up", "attn.wq_b.weight", f"{_AT}linear_q_up_proj.weight", "(head head_dim) q_lora_rank", "head"
        ),
        Own("attention.kv", "attn.wkv.weight", f"{_AT}linear_kv.weight", "head_dim hidden"),
        Own("attention.kv_norm", "attn.kv_norm.weight", f"{_AT}kv_layernorm.weight", "head_dim"),
        Own("attention.o_down", "attn.wo_a.weight", f"{_AT}linear_o_down_proj.weight", f"{_OUT} o_in", "o_groups"),
        Own("attention.o_up", "attn.wo_b.weight", f"{_AT}linear_o_up_proj.weight", f"hidden {_OUT}", "o_groups"),
        *_connection("connection.attention", "hc_attn", "attn_mhc", "mix", "kinds_of_mix"),
    ),
    "compressor": _compressor(
        "compressor", "attn.compressor", f"{_AT}compressor", "ratio", "compressor_width", "head_dim"
    ),
    "indexer": (
        *_compressor(
            "indexer",
            "attn.indexer.compressor",
            f"{_AT}indexer.kv_compressor",
            "ratio",
            "index_width",
            "index_head_dim",
        ),
        *(
            Own(f"indexer.{name}", f"attn.indexer.{name}.weight", f"{_AT}indexer.{name}.weight", axes)
            for name, axes in {
                "wq_b": "(index_n_heads index_head_dim) q_lora_rank",
                "weights_proj": "index_n_heads hidden",
            }.items()
        ),
    ),
    "moe": _connection("connection.moe", "hc_ffn", "mlp_mhc", "mix", "kinds_of_mix"),
    "mtp": _connection("mtp.connection", "hc_head", "hc_head", "hc_mult", "one"),
}
"""Block -> its tensors with keys of their own."""
_PARTS = {"gate": "w1", "up": "w3", "down": "w2"}
USUAL: Mapping[str, Mapping[str, str]] = {
    "model": {"embedding": "embed.weight", "head": "head.weight"},
    "attention": {"norm.input": "attn_norm.weight"},
    "moe": {
        "norm.pre_mlp": "ffn_norm.weight",
        "moe.router": "ffn.gate.weight",
        **{f"moe.expert.{part}": f"ffn.experts.{{expert}}.{name}.weight" for part, name in _PARTS.items()},
        **{f"moe.shared.{part}": f"ffn.shared_experts.{name}.weight" for part, name in _PARTS.items()},
    },
    "by_table": {"moe.router_table": "ffn.gate.tid2eid"},
    "by_score": {"moe.router_bias": "ffn.gate.bias"},
    "mtp": {
        "embedding": "emb.tok_emb.weight",
        "head": "head.weight",
        "mtp.embedding_norm": "enorm.weight",
        "mtp.hidden_norm": "hnorm.weight",
        "mtp.embedding_proj": "e_proj.weight",
        "mtp.hidden_proj": "h_proj.weight",
        "mtp.final_norm": "norm.weight",
    },
}
"""Block -> role -> name of the others; the names of both get a prefix for the layer."""
