"""Qwen3-Next: gated delta networks with full attention in every few layers, and experts in all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from mscvt import (
    ATTENTION,
    ENDS,
    EXPERTS,
    GATED_SHARED_EXPERT,
    MOE,
    NORMS,
    QK_NORM,
    Hyperparameters,
    Layer,
    ModelType,
    MscvtError,
    Own,
    Rule,
    absent,
    count,
    hookimpl,
    number,
    same,
    whole,
    words,
)

MSCVT_API = 2

NAMES = {
    "model": ENDS,
    "attention": NORMS | ATTENTION | QK_NORM,
    "delta": NORMS,
    "moe": EXPERTS | GATED_SHARED_EXPERT,
    "mtp": {
        "mtp.proj": "mtp.fc.weight",
        "mtp.embedding_norm": "mtp.pre_fc_norm_embedding.weight",
        "mtp.hidden_norm": "mtp.pre_fc_norm_hidden.weight",
        "mtp.final_norm": "mtp.norm.weight",
    },
}
_KEYS, _VALUES = "linear_num_key_heads linear_key_head_dim", "linear_num_value_heads linear_value_head_dim"
_KERNEL = "1 linear_conv_kernel_dim"
_DELTA = {
    "A_log": ("delta.decay", "linear_num_value_heads"),
    "dt_bias": ("delta.step_bias", "linear_num_value_heads"),
    "conv1d.weight": ("delta.conv", f"(half {_KEYS}) {_KERNEL} | ({_VALUES}) {_KERNEL}"),
    "norm.weight": ("delta.norm", "linear_value_head_dim"),
    "in_proj_qkvz.weight": ("delta.qkvz", f"(half {_KEYS}) hidden | (half {_VALUES}) hidden"),
    "in_proj_ba.weight": ("delta.ba", "(half linear_num_value_heads) hidden"),
    "out_proj.weight": ("delta.out", f"hidden ({_VALUES})"),
}
_FROM, _TO = "model.layers.{layer}.linear_attn.", "self_attention."
OWN = {"delta": [Own(role, _FROM + name, _TO + name, axes) for name, (role, axes) in _DELTA.items()]}
_FULL, _LINEAR = "full_attention", "linear_attention"
_HEADS = ("linear_key_head_dim", "linear_num_key_heads", "linear_num_value_heads", "linear_value_head_dim")
FIELDS = {
    **same(count, *_HEADS, "linear_conv_kernel_dim"),
    "num_experts": count("num_experts", "num_local_experts"),
    "moe_intermediate_size": count("moe_intermediate_size"),
    "moe_shared_expert_intermediate_size": count("shared_expert_intermediate_size"),
    "layer_types": words("layer_types", default=None, among=(_FULL, _LINEAR), each_layer=True),
    "full_attention_interval": count("full_attention_interval", default=4),
    "partial_rotary_factor": number("partial_rotary_factor", "rope_parameters.partial_rotary_factor", default=0.25),
    "rotary_percent": absent(),  # training has a flag of its own for it
    "mtp_num_layers": count("num_nextn_predict_layers", default=1, least=0),
}
ARGS = {
    **dict.fromkeys(("add_rmsnorm_offset", "mtp_reorder_flag"), True),
    **{"n_shared_experts": 1, "first_k_dense_replace": 0, "qkv_type": "mix"},
}
_ALONE = "models are trained with tensor parallelism 1 alone"
REFUSED = {
    **dict.fromkeys(("target_tensor_parallel_size", "moe_tp_extend_ep"), _ALONE),
    "transformer_impl": "models are trained with local modules alone",
    "dialect": "models have gated delta layers, whose norms megatron-core (since 0.16) stores minus one",
}
FLAGS = (
    *("full_attention_interval", *_HEADS, "--mamba-d-conv {linear_conv_kernel_dim}"),
    *("partial_rotary_factor", "--no-enable-linear-qkv", "add_rmsnorm_offset"),
)


def _say_interval(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Since transformers 5, it has the kind of each layer alone; training knows the interval."""
    kinds = config.get("layer_types")
    if config.get("full_attention_interval") is not None or not isinstance(kinds, list) or _FULL not in kinds:
        return config
    return {**config, "full_attention_interval": kinds.index(_FULL) + 1}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `qwen3-next`; Qwen3-Coder-Next is the same without MTP.

    The one MTP layer has names of its own, and no embedding and no head.
    """
    return [
        ModelType(
            "qwen3-next",
            ("qwen3_next",),
            FIELDS,
            respell=_say_interval,
            refused=REFUSED,
            args=ARGS,
            flags=FLAGS,
            names=NAMES,
            own=OWN,
            mtp_prefix="mtp.layers.{mtp}.",
        )
    ]


@hookimpl
def mscvt_layers(hyperparameters: Hyperparameters) -> Sequence[Layer]:
    """Full attention where `layer_types` says so, or in every `full_attention_interval`-th layer.

    Raises:
        MscvtError: Where there is more than one MTP layer.
    """
    h = hyperparameters
    size, depth, kinds = h["num_layers"], h.get("mtp_num_layers", 0), h.get("layer_types")
    if kinds is None:
        kinds = [_LINEAR if (i + 1) % h["full_attention_interval"] else _FULL for i in range(size)]
    if depth > 1:
        raise MscvtError(f"{depth} MTP layers, the model has one at most", hint="Mend config.json.")
    layers = [Layer(i, MOE if kind == _FULL else ("delta", "moe")) for i, kind in enumerate(kinds[:size])]
    return layers + [Layer(size + m, MOE, mtp=m) for m in range(depth)]


@hookimpl
def mscvt_split_rules() -> Sequence[Rule]:
    """Nothing of attention is cut or packed; each query head is followed by its output gate."""
    return (
        whole("self_attention.q_proj.weight", "attention.q", "(head half channel) hidden"),
        whole("self_attention.k_proj.weight", "attention.k", "(group channel) hidden"),
        whole("self_attention.v_proj.weight", "attention.v", "(group channel) hidden"),
    )
