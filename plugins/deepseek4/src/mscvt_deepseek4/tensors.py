"""The tensors of DeepSeek-V4: role, name in a release, and the key and axes in training."""

from collections.abc import Mapping

from mscvt import TENSOR, Own, gated_mlp, in_layers

_LAYER = "layers.{layer}."
_FROM, _TO = _LAYER + "attn.", "self_attention."
_HEADS, _GROUPS, _OUT = {"head": TENSOR}, {"o_groups": TENSOR}, "(o_groups o_lora_rank)"


def _own(role: str, name: str, key: str, axes: str, cuts: Mapping[str, str] | None = None) -> Own:
    """A weight of attention."""
    return Own(role, f"{_FROM}{name}.weight", f"{_TO}{key}.weight", axes, cuts or {})


def _compressor(role: str, name: str, key: str, width: str, channels: str) -> list[Own]:
    ape = Own(f"{role}.ape", f"{_FROM}{name}.ape", f"{_TO}{key}.ape", f"ratio {width}", keeps_dtype=True)
    norm = _own(f"{role}.norm", f"{name}.norm", f"{key}.norm", channels)
    return [ape, norm, *(_own(f"{role}.{w}", f"{name}.{w}", f"{key}.{w}", f"{width} hidden") for w in ("wgate", "wkv"))]


def _connection(role: str, name: str, key: str, rows: str = "mix", scales: str = "kinds_of_mix") -> list[Own]:
    """A hyper-connection, which training keeps in float32."""
    parts = {"base": ("hc_base", rows), "fn": ("hc_fn.weight", f"{rows} connected"), "scale": ("hc_scale", scales)}
    return [Own(f"{role}.{p}", f"{name}_{p}", f"{key}.{k}", axes, keeps_dtype=True) for p, (k, axes) in parts.items()]


OWN: Mapping[str, list[Own]] = {
    "model": [
        Own("norm.final", "norm.weight", "final_layernorm.weight", "hidden"),
        *_connection("connection.head", "hc_head", "hc_head", "hc_mult", "1"),
    ],
    "attention": [
        Own("attention.sink", _FROM + "attn_sink", _TO + "attn_sink", "head", _HEADS, keeps_dtype=True),
        _own("attention.q_down", "wq_a", "linear_q", "q_lora_rank hidden"),
        _own("attention.q_norm", "q_norm", "q_layernorm", "q_lora_rank"),
        _own("attention.q_up", "wq_b", "linear_q_up_proj", "(head head_dim) q_lora_rank", _HEADS),
        _own("attention.kv", "wkv", "linear_kv", "head_dim hidden"),
        _own("attention.kv_norm", "kv_norm", "kv_layernorm", "head_dim"),
        _own("attention.o_down", "wo_a", "linear_o_down_proj", f"{_OUT} o_in", _GROUPS),
        _own("attention.o_up", "wo_b", "linear_o_up_proj", f"hidden {_OUT}", _GROUPS),
        *_connection("connection.attention", _LAYER + "hc_attn", "attn_mhc"),
    ],
    "compressor": _compressor("compressor", "compressor", "compressor", "compressor_width", "head_dim"),
    "indexer": [
        *_compressor("indexer", "indexer.compressor", "indexer.kv_compressor", "index_width", "index_head_dim"),
        _own("indexer.wq_b", "indexer.wq_b", "indexer.wq_b", "(index_n_heads index_head_dim) q_lora_rank"),
        _own("indexer.weights_proj", "indexer.weights_proj", "indexer.weights_proj", "index_n_heads hidden"),
    ],
    "moe": _connection("connection.moe", _LAYER + "hc_ffn", "mlp_mhc"),
    "mtp": _connection("mtp.connection", "mtp.{mtp}.hc_head", "hc_head", "hc_mult", "1"),
}
"""Block -> its tensors with keys of their own."""
_EXPERTS = {
    "norm.pre_mlp": "ffn_norm.weight",
    "moe.router": "ffn.gate.weight",
    **gated_mlp("moe.expert", "ffn.experts.{expert}.", "w1 w3 w2"),
    **gated_mlp("moe.shared", "ffn.shared_experts.", "w1 w3 w2"),
}
_MTP = {
    "embedding": "emb.tok_emb.weight",
    "head": "head.weight",
    "mtp.embedding_norm": "enorm.weight",
    "mtp.hidden_norm": "hnorm.weight",
    "mtp.embedding_proj": "e_proj.weight",
    "mtp.hidden_proj": "h_proj.weight",
    "mtp.final_norm": "norm.weight",
}
NAMES: Mapping[str, Mapping[str, str]] = {
    "model": {"embedding": "embed.weight", "head": "head.weight"},
    "attention": in_layers({"norm.input": "attn_norm.weight"}, _LAYER),
    "moe": in_layers(_EXPERTS, _LAYER),
    "by_table": in_layers({"moe.router_table": "ffn.gate.tid2eid"}, _LAYER),
    "by_score": in_layers({"moe.router_bias": "ffn.gate.bias"}, _LAYER),
    "mtp": in_layers(_MTP, "mtp.{mtp}."),
}
"""Block -> role -> name of the others."""
