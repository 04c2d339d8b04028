"""Qwen3-Next: gated delta networks with full attention in every few layers, and experts in all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from mscvt import (
    ATTENTION,
    ENDS,
    EXPERTS,
    NORMS,
    QK_NORM,
    Hyperparameters,
    Layer,
    ModelType,
    MscvtError,
    Rule,
    count,
    hookimpl,
    number,
    whole,
    words,
)

MSCVT_API = 2

_LAYER = "model.layers.{layer}."
_SHARED = {f"moe.shared.{half}": f"{_LAYER}mlp.shared_expert.{half}_proj.weight" for half in ("gate", "up", "down")}
_GATE = {"moe.shared_gate": _LAYER + "mlp.shared_expert_gate.weight"}
_DELTA = {
    "delta.decay": _LAYER + "linear_attn.A_log",
    "delta.step_bias": _LAYER + "linear_attn.dt_bias",
    "delta.conv": _LAYER + "linear_attn.conv1d.weight",
    "delta.norm": _LAYER + "linear_attn.norm.weight",
    "delta.qkvz": _LAYER + "linear_attn.in_proj_qkvz.weight",
    "delta.ba": _LAYER + "linear_attn.in_proj_ba.weight",
    "delta.out": _LAYER + "linear_attn.out_proj.weight",
}
_FULL = NORMS | ATTENTION | QK_NORM
_MOE = EXPERTS | _SHARED | _GATE
BLOCKS: Mapping[str, Mapping[str, str]] = {
    "model": ENDS,
    "attention": _FULL,
    "delta": NORMS | _DELTA,
    "moe": _MOE,
    "mtp_attention": {role: name.replace(_LAYER, "mtp.layers.{mtp}.") for role, name in _FULL.items()},
    "mtp_moe": {role: name.replace(_LAYER, "mtp.layers.{mtp}.") for role, name in _MOE.items()},
    "mtp": {
        "mtp.proj": "mtp.fc.weight",
        "mtp.embedding_norm": "mtp.pre_fc_norm_embedding.weight",
        "mtp.hidden_norm": "mtp.pre_fc_norm_hidden.weight",
        "mtp.final_norm": "mtp.norm.weight",
    },
}
_FULL_ATTENTION, _LINEAR_ATTENTION = "full_attention", "linear_attention"
_DELTA_SIZES = (
    "linear_num_key_heads",
    "linear_num_value_heads",
    "linear_key_head_dim",
    "linear_value_head_dim",
    "linear_conv_kernel_dim",
)
FIELDS = {
    **{name: count(name) for name in _DELTA_SIZES},
    "num_experts": count("num_experts", "num_local_experts"),
    "moe_intermediate_size": count("moe_intermediate_size"),
    "moe_shared_expert_intermediate_size": count("shared_expert_intermediate_size"),
    "layer_types": words("layer_types", default=None),
    "full_attention_interval": count("full_attention_interval", default=4),
    "partial_rotary_factor": number("partial_rotary_factor", "rope_parameters.partial_rotary_factor", default=0.25),
    "mtp_num_layers": count("num_nextn_predict_layers", default=1, least=0),
}


def _say_interval(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Since transformers 5, it has the kind of each layer alone; training knows the interval."""
    kinds = config.get("layer_types")
    if config.get("full_attention_interval") is not None or not isinstance(kinds, list):
        return config
    return (
        {**config, "full_attention_interval": kinds.index(_FULL_ATTENTION) + 1} if _FULL_ATTENTION in kinds else config
    )


def _sizes(h: Hyperparameters) -> Mapping[str, int]:
    keys = h["linear_num_key_heads"] * h["linear_key_head_dim"]
    values = h["linear_num_value_heads"] * h["linear_value_head_dim"]
    return {
        "delta_value": values,
        "delta_conv": 2 * keys + values,
        "delta_qkvz": 2 * keys + 2 * values,
        "delta_ba": 2 * h["linear_num_value_heads"],
        "query_and_gate": 2,
    }


def _args(_h: Hyperparameters, layers: Sequence[Layer]) -> Mapping[str, Any]:
    decoder = [layer for layer in layers if layer.mtp is None]
    return {
        "layer_types": [_FULL_ATTENTION if "attention" in layer.kind else _LINEAR_ATTENTION for layer in decoder],
        "add_rmsnorm_offset": True,
        "shared_expert_gate": True,
        "n_shared_experts": 1,
        "first_k_dense_replace": 0,
        "qkv_type": "mix",
        "mtp_reorder_flag": True,
    }


def _flags(h: Hyperparameters) -> Sequence[str]:
    return [
        f"--full-attention-interval {h['full_attention_interval']}",
        f"--linear-key-head-dim {h['linear_key_head_dim']}",
        f"--linear-num-key-heads {h['linear_num_key_heads']}",
        f"--linear-num-value-heads {h['linear_num_value_heads']}",
        f"--linear-value-head-dim {h['linear_value_head_dim']}",
        f"--mamba-d-conv {h['linear_conv_kernel_dim']}",
        f"--partial-rotary-factor {h['partial_rotary_factor']}",
        "--no-enable-linear-qkv",
        "--add-rmsnorm-offset",
    ]


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `qwen3-next`; Qwen3-Coder-Next is the same without MTP."""
    refused = {
        "target_tensor_parallel_size": "models are trained with tensor parallelism 1 alone",
        "moe_tp_extend_ep": "models are trained with tensor parallelism 1 alone",
        "transformer_impl": "models are trained with local modules alone",
        "dialect": "models have gated delta layers, whose norms megatron-core stores minus one",
    }
    return [
        ModelType(
            "qwen3-next",
            ("qwen3_next",),
            FIELDS,
            sizes=_sizes,
            respell=_say_interval,
            refused=refused,
            args=_args,
            flags=_flags,
        )
    ]


@hookimpl
def mscvt_names(block: str) -> Mapping[str, str] | None:
    """The one MTP layer has names of its own, and no embedding and no head."""
    return BLOCKS.get(block)


@hookimpl
def mscvt_layers(hyperparameters: Hyperparameters) -> Sequence[Layer]:
    """Full attention where `layer_types` says so, or in every `full_attention_interval`-th layer.

    Raises:
        MscvtError: Where the list is too short or says something else, or there is more than one MTP layer.
    """
    h = hyperparameters
    size, depth, kinds = h["num_layers"], h.get("mtp_num_layers", 0), h.get("layer_types")
    if kinds is None:
        step = h["full_attention_interval"]
        kinds = [_LINEAR_ATTENTION if (i + 1) % step else _FULL_ATTENTION for i in range(size)]
    if len(kinds) < size or not {_FULL_ATTENTION, _LINEAR_ATTENTION} >= set(kinds):
        raise MscvtError(
            f"layer_types says {' '.join(kinds):.200}, expected {_FULL_ATTENTION} or {_LINEAR_ATTENTION} for each of "
            f"{size} layers",
            hint="Mend layer_types in config.json.",
        )
    if depth > 1:
        raise MscvtError(f"{depth} MTP layers, the model has one at most", hint="Mend config.json.")
    layers = [
        Layer(i, ("attention" if kind == _FULL_ATTENTION else "delta", "moe")) for i, kind in enumerate(kinds[:size])
    ]
    return layers + [Layer(size + m, ("mtp_attention", "mtp_moe"), mtp=m) for m in range(depth)]


@hookimpl
def mscvt_split_rules() -> Sequence[Rule]:
    """Nothing of attention is cut or packed; each query head is followed by its output gate."""
    module = "self_attention."
    return (
        whole(module + "q_proj.weight", "attention.q", "(head query_and_gate channel) hidden"),
        whole(module + "k_proj.weight", "attention.k", "(group channel) hidden"),
        whole(module + "v_proj.weight", "attention.v", "(group channel) hidden"),
        whole(module + "A_log", "delta.decay", "linear_num_value_heads"),
        whole(module + "dt_bias", "delta.step_bias", "linear_num_value_heads"),
        whole(module + "conv1d.weight", "delta.conv", "delta_conv 1 linear_conv_kernel_dim"),
        whole(module + "norm.weight", "delta.norm", "linear_value_head_dim"),
        whole(module + "in_proj_qkvz.weight", "delta.qkvz", "delta_qkvz hidden"),
        whole(module + "in_proj_ba.weight", "delta.ba", "delta_ba hidden"),
        whole(module + "out_proj.weight", "delta.out", "hidden delta_value"),
    )
