"""Qwen3-MoE: Qwen3's attention, and experts behind a router in most layers."""

from collections.abc import Mapping, Sequence

from mscvt import DECODER, DENSE, MODEL, MOE, Hyperparameters, Layer, ModelType, field_at, hookimpl

MSCVT_API = 1

_DENSE = {
    **DECODER[DENSE],
    "attention.q_norm": "model.layers.{layer}.self_attn.q_norm.weight",
    "attention.k_norm": "model.layers.{layer}.self_attn.k_norm.weight",
}
NAMES = {
    MODEL: DECODER[MODEL],
    DENSE: _DENSE,
    MOE: {
        **{role: name for role, name in _DENSE.items() if not role.startswith("mlp.")},
        "moe.router": "model.layers.{layer}.mlp.gate.weight",
        "moe.expert.gate": "model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight",
        "moe.expert.up": "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight",
        "moe.expert.down": "model.layers.{layer}.mlp.experts.{expert}.down_proj.weight",
    },
}
FIELDS = {
    "num_experts": field_at("num_experts", "num_local_experts"),
    "moe_intermediate_size": field_at("moe_intermediate_size"),
    "decoder_sparse_step": field_at("decoder_sparse_step", default=1),
    "mlp_only_layers": field_at("mlp_only_layers", default=()),
}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `qwen3-moe`."""
    return [ModelType("qwen3-moe", config_model_types=("qwen3_moe",), fields=FIELDS)]


@hookimpl
def mscvt_names(kind: str) -> Mapping[str, str] | None:
    """The names of dense layers and of those with experts."""
    return NAMES.get(kind)


@hookimpl
def mscvt_layers(hyperparameters: Hyperparameters) -> Sequence[Layer]:
    """Every `decoder_sparse_step`-th layer has experts, except those of `mlp_only_layers` (transformers' rule)."""
    step, dense = hyperparameters["decoder_sparse_step"], hyperparameters["mlp_only_layers"]
    return [Layer(i, DENSE if i in dense or (i + 1) % step else MOE) for i in range(hyperparameters["num_layers"])]
