"""Phi-3.5: projections packed into one tensor. Phi-3.5-MoE: biases everywhere, layer norms, experts w1, w3 and w2."""

from collections.abc import Mapping, Sequence
from typing import Any

from mscvt import (
    ATTENTION,
    ENDS,
    MOE,
    NORMS,
    QKV_BIAS,
    SPARSE_EXPERTS,
    Hyperparameters,
    Layer,
    ModelType,
    count,
    flag,
    hookimpl,
    number,
    table,
)

MSCVT_API = 2

_LAYER = "model.layers.{layer}."
PACKED = {
    "model": ENDS,
    "attention": NORMS
    | {
        "attention.qkv": _LAYER + "self_attn.qkv_proj.weight",
        "attention.proj": _LAYER + "self_attn.o_proj.weight",
    },
    "mlp": {"mlp.gate_up": _LAYER + "mlp.gate_up_proj.weight", "mlp.down": _LAYER + "mlp.down_proj.weight"},
}
NORM_BIASES = {
    "norm.input_bias": _LAYER + "input_layernorm.bias",
    "norm.pre_mlp_bias": _LAYER + "post_attention_layernorm.bias",
}
LONGROPE_FLAGS = {
    "long_factor": "--long-factor",
    "short_factor": "--short-factor",
    "long_mscale": "--long-mscale",
    "short_mscale": "--short-mscale",
    "original_max_position_embeddings": "--rope-scaling-original-max-position-embeddings",
}
"""What a configuration says of rotary embeddings for long contexts -> what training calls it."""
PROJ_BIAS = {"attention.proj_bias": _LAYER + "self_attn.o_proj.bias"}
HEAD_BIAS = {"head_bias": "lm_head.bias"}

ROPE = {
    "rotary_percent": number("partial_rotary_factor", "rope_parameters.partial_rotary_factor", default=1.0),
    "longrope": table("longrope", default=None),
}
MOE_FIELDS = {
    **ROPE,
    "num_experts": count("num_local_experts", "num_experts"),
    "moe_intermediate_size": count("intermediate_size"),
    "add_qkv_bias": flag("attention_bias", default=False),
    "add_output_layer_bias": flag("lm_head_bias", default=False),
}


def _respell(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rotary embedding's factors for long contexts, wherever the configuration has them, as `longrope`."""
    rope = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(rope, Mapping) or "longrope" not in (rope.get("rope_type"), rope.get("type")):
        return config
    said = {name: rope[name] for name in LONGROPE_FLAGS if name in rope}
    original = config.get("original_max_position_embeddings")
    return {**config, "longrope": said if original is None else {**said, "original_max_position_embeddings": original}}


def _rope_flags(hyperparameters: Hyperparameters) -> Sequence[str]:
    part, factors = hyperparameters["rotary_percent"], hyperparameters.get("longrope")
    flags = [] if part == 1 else [f"--rotary-percent {part}"]
    if factors:
        flags += ["--rope-scaling-type longrope", "--longrope-freqs-type outer"]
    for name, value in sorted((factors or {}).items()):
        written = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        flags.append(f"{LONGROPE_FLAGS[name]} {written}")
    return flags


def _moe_args(hyperparameters: Hyperparameters, _layers: Sequence[Layer]) -> Mapping[str, Any]:
    biased = hyperparameters["add_qkv_bias"]
    return {"normalization": "LayerNorm", "moe_flag": True, "add_qkv_bias": biased, "add_dense_bias": biased}


def _moe_flags(hyperparameters: Hyperparameters) -> Sequence[str]:
    return [
        "--spec mindspeed_llm.tasks.models.spec.phi35_moe_spec layer_spec",
        "--normalization LayerNorm",
        *(["--add-qkv-bias", "--add-dense-bias"] if hyperparameters["add_qkv_bias"] else []),
        *(["--add-output-layer-bias"] if hyperparameters["add_output_layer_bias"] else []),
        *_rope_flags(hyperparameters),
    ]


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `phi3.5`, which is Phi-3 and Phi-4 too, and `phi3.5-moe`."""
    refused = {
        "transformer_impl": "models are trained with local modules alone",
        "dialect": "models choose experts in a way of their own, and megatron-core has no router for that",
    }
    return [
        ModelType("phi3.5", ("phi3",), ROPE, respell=_respell, flags=_rope_flags),
        ModelType(
            "phi3.5-moe",
            ("phimoe",),
            MOE_FIELDS,
            respell=_respell,
            refused=refused,
            args=_moe_args,
            flags=_moe_flags,
        ),
    ]


@hookimpl
def mscvt_names(model_type: str, block: str, hyperparameters: Hyperparameters) -> Mapping[str, str] | None:
    """Packed names, or names with the biases that the configuration says there are."""
    if model_type == "phi3.5":
        return PACKED.get(block)
    biases = (QKV_BIAS | PROJ_BIAS) if hyperparameters["add_qkv_bias"] else {}
    head = HEAD_BIAS if hyperparameters["add_output_layer_bias"] else {}
    blocks = {
        "model": {**ENDS, "norm.final_bias": "model.norm.bias", **head},
        "attention": {**NORMS, **NORM_BIASES, **ATTENTION, **biases},
        "moe": SPARSE_EXPERTS,
    }
    return blocks.get(block)


@hookimpl
def mscvt_layers(model_type: str, hyperparameters: Hyperparameters) -> Sequence[Layer] | None:
    """Every layer of Phi-3.5-MoE has experts."""
    return None if model_type == "phi3.5" else [Layer(i, MOE) for i in range(hyperparameters["num_layers"])]
