"""Qwen2 and Qwen2.5: biases of queries, keys and values; Qwen2-MoE has experts and one gated shared expert."""

from collections.abc import Mapping, Sequence
from typing import Any

from mscvt import (
    DECODER,
    DENSE,
    EXPERTS,
    MOE,
    QKV_BIAS,
    Hyperparameters,
    Layer,
    ModelType,
    count,
    counts,
    flag,
    hookimpl,
)

MSCVT_API = 2

_SHARED = "model.layers.{layer}.mlp.shared_expert"
SHARED_EXPERT = {
    "moe.shared_gate": _SHARED + "_gate.weight",
    **{f"moe.shared.{half}": f"{_SHARED}.{half}_proj.weight" for half in ("gate", "up", "down")},
}
BLOCKS = {**DECODER, "attention": DECODER["attention"] | QKV_BIAS, "moe": {**EXPERTS, **SHARED_EXPERT}}

MOE_FIELDS = {
    "add_qkv_bias": flag("qkv_bias", default=True),
    "num_experts": count("num_experts", "num_local_experts"),
    "moe_intermediate_size": count("moe_intermediate_size"),
    "moe_shared_expert_intermediate_size": count("shared_expert_intermediate_size"),
    "decoder_sparse_step": count("decoder_sparse_step", default=1),
    "mlp_only_layers": counts("mlp_only_layers", default=()),
}


def _shared_experts(hyperparameters: Hyperparameters) -> int | None:
    """How many usual experts the shared one is as wide as, where that is a whole number."""
    width, one = (hyperparameters[f"moe_{name}intermediate_size"] for name in ("shared_expert_", ""))
    return None if width % one else width // one


def _moe_args(hyperparameters: Hyperparameters, _layers: Sequence[Layer]) -> Mapping[str, Any]:
    args = {"add_qkv_bias": hyperparameters["add_qkv_bias"], "shared_expert_gate": True}
    number = _shared_experts(hyperparameters)
    return args if number is None else {**args, "n_shared_experts": number}


def _moe_flags(hyperparameters: Hyperparameters) -> Sequence[str]:
    number = _shared_experts(hyperparameters)
    return [
        *(["--add-qkv-bias"] if hyperparameters["add_qkv_bias"] else []),
        "--shared-expert-gate",
        *([f"--n-shared-experts {number}"] if number else []),
    ]


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `qwen25`, which is Qwen2 too, and `qwen2-moe`."""
    return [
        ModelType("qwen25", ("qwen2",), args={"add_qkv_bias": True}, flags=lambda _: ["--add-qkv-bias"]),
        ModelType("qwen2-moe", ("qwen2_moe",), MOE_FIELDS, args=_moe_args, flags=_moe_flags),
    ]


@hookimpl
def mscvt_names(block: str, hyperparameters: Hyperparameters) -> Mapping[str, str] | None:
    """The names of attention with its biases, of the dense MLP and of the experts."""
    if not hyperparameters.get("add_qkv_bias", True) and block == "attention":
        return DECODER["attention"]
    return BLOCKS.get(block)


@hookimpl
def mscvt_layers(model_type: str, hyperparameters: Hyperparameters) -> Sequence[Layer] | None:
    """Every `decoder_sparse_step`-th layer has experts, except those of `mlp_only_layers` (transformers' rule)."""
    if model_type == "qwen25":
        return None
    step, dense = hyperparameters["decoder_sparse_step"], hyperparameters["mlp_only_layers"]
    return [Layer(i, DENSE if i in dense or (i + 1) % step else MOE) for i in range(hyperparameters["num_layers"])]
