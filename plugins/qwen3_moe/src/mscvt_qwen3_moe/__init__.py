"""Qwen3-MoE: Qwen3's attention, and experts behind a router in most layers."""

from collections.abc import Mapping, Sequence

from mscvt import (
    DECODER,
    DENSE,
    EXPERTS,
    MOE,
    QK_NORM,
    Hyperparameters,
    Layer,
    ModelType,
    count,
    counts,
    hookimpl,
)

MSCVT_API = 2

BLOCKS = {**DECODER, "attention": DECODER["attention"] | QK_NORM, "moe": EXPERTS}
FIELDS = {
    "num_experts": count("num_experts", "num_local_experts"),
    "moe_intermediate_size": count("moe_intermediate_size"),
    "decoder_sparse_step": count("decoder_sparse_step", default=1),
    "mlp_only_layers": counts("mlp_only_layers", default=()),
}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `qwen3-moe`."""
    return [ModelType("qwen3-moe", config_model_types=("qwen3_moe",), fields=FIELDS)]


@hookimpl
def mscvt_names(block: str) -> Mapping[str, str] | None:
    """The names of attention, of the dense MLP and of the experts."""
    return BLOCKS.get(block)


@hookimpl
def mscvt_layers(hyperparameters: Hyperparameters) -> Sequence[Layer]:
    """Every `decoder_sparse_step`-th layer has experts, except those of `mlp_only_layers` (transformers' rule)."""
    step, dense = hyperparameters["decoder_sparse_step"], hyperparameters["mlp_only_layers"]
    return [Layer(i, DENSE if i in dense or (i + 1) % step else MOE) for i in range(hyperparameters["num_layers"])]
