"""Mixtral: the plain decoder's attention, and experts in every layer under the names w1, w3 and w2."""

from collections.abc import Mapping, Sequence

from mscvt import DECODER, MOE, SPARSE_EXPERTS, Hyperparameters, Layer, ModelType, count, hookimpl

MSCVT_API = 2

BLOCKS = {**DECODER, "moe": SPARSE_EXPERTS}
FIELDS = {
    "num_experts": count("num_local_experts", "num_experts"),
    "moe_intermediate_size": count("intermediate_size"),
}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `mixtral`."""
    return [ModelType("mixtral", ("mixtral",), FIELDS)]


@hookimpl
def mscvt_names(block: str) -> Mapping[str, str] | None:
    """The names of attention and of the experts."""
    return BLOCKS.get(block)


@hookimpl
def mscvt_layers(hyperparameters: Hyperparameters) -> Sequence[Layer]:
    """Every layer has experts."""
    return [Layer(i, MOE) for i in range(hyperparameters["num_layers"])]
