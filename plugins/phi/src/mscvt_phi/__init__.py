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
PROJ_BIAS = {"attention.proj_bias": _LAYER + "self_attn.o_proj.bias"}
HEAD_BIAS = {"head_bias": "lm_head.bias"}

MOE_FIELDS = {
    "num_experts": count("num_local_experts", "num_experts"),
    "moe_intermediate_size": count("intermediate_size"),
    "add_qkv_bias": flag("attention_bias", default=False),
    "add_output_layer_bias": flag("lm_head_bias", default=False),
}


def _moe_args(hyperparameters: Hyperparameters, _layers: Sequence[Layer]) -> Mapping[str, Any]:
    biased = hyperparameters["add_qkv_bias"]
    return {"normalization": "LayerNorm", "moe_flag": True, "add_qkv_bias": biased, "add_dense_bias": biased}


def _moe_flags(hyperparameters: Hyperparameters) -> Sequence[str]:
    return [
        "--spec mindspeed_llm.tasks.models.spec.phi35_moe_spec layer_spec",
        "--normalization LayerNorm",
        *(["--add-qkv-bias", "--add-dense-bias"] if hyperparameters["add_qkv_bias"] else []),
        *(["--add-output-layer-bias"] if hyperparameters["add_output_layer_bias"] else []),
    ]


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `phi3.5`, which is Phi-3 and Phi-4 too, and `phi3.5-moe`."""
    refused = {"transformer_impl": "models are trained with local modules alone"}
    return [
        ModelType("phi3.5", ("phi3",)),
        ModelType("phi3.5-moe", ("phimoe",), MOE_FIELDS, refused=refused, args=_moe_args, flags=_moe_flags),
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
