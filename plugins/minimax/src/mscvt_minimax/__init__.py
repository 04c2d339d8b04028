"""MiniMax M2: experts in every layer, and one norm over all query heads and one over all key heads."""

from collections.abc import Mapping, Sequence

from mscvt import DECODER, MOE, QK_NORM, SPARSE_EXPERTS, Hyperparameters, Layer, ModelType, Rule, count, hookimpl, whole

MSCVT_API = 2

ROUTER_BIAS = {"moe.router_bias": "model.layers.{layer}.block_sparse_moe.e_score_correction_bias"}
BLOCKS = {**DECODER, "attention": DECODER["attention"] | QK_NORM, "moe": SPARSE_EXPERTS | ROUTER_BIAS}
FIELDS = {
    "num_experts": count("num_local_experts", "num_experts"),
    "moe_intermediate_size": count("intermediate_size"),
}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `minimax_m2`. Releases hold no MTP layers, though `config.json` speaks of some."""
    refused = {
        "transformer_impl": "models are trained with local modules alone",
        "dialect": "models have norms over all heads together, and megatron-core has one for each head",
    }
    noted = {"target_tensor_parallel_size": "models are not trained with tensor parallelism for now"}
    args = {"first_k_dense_replace": 0}
    return [ModelType("minimax_m2", ("minimax_m2",), FIELDS, refused=refused, noted=noted, args=args)]


@hookimpl
def mscvt_names(block: str) -> Mapping[str, str] | None:
    """The names of attention and of the experts."""
    return BLOCKS.get(block)


@hookimpl
def mscvt_layers(hyperparameters: Hyperparameters) -> Sequence[Layer]:
    """Every layer has experts."""
    return [Layer(i, MOE) for i in range(hyperparameters["num_layers"])]


@hookimpl
def mscvt_split_rules() -> Sequence[Rule]:
    """The two norms are as long as all heads together, and whole on every rank."""
    return (
        whole("self_attention.q_layernorm.weight", "attention.q_norm", "(head channel)"),
        whole("self_attention.k_layernorm.weight", "attention.k_norm", "(group channel)"),
    )
