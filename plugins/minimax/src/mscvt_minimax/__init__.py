"""MiniMax M2: experts in every layer, and one norm over all query heads and one over all key heads."""

from collections.abc import Sequence

from mscvt import DECODER, QK_NORM, SPARSE_EXPERT_FIELDS, SPARSE_EXPERTS, ModelType, Rule, hookimpl, in_layers, whole

MSCVT_API = 2

ROUTER_BIAS = in_layers({"moe.router_bias": "block_sparse_moe.e_score_correction_bias"})
NAMES = {**DECODER, "attention": DECODER["attention"] | QK_NORM, "moe": SPARSE_EXPERTS | ROUTER_BIAS}
REFUSED = {
    "transformer_impl": "models are trained with local modules alone",
    "dialect": "models have norms over all heads together, and megatron-core has one for each head",
}
NOTED = {"target_tensor_parallel_size": "models are not trained with tensor parallelism for now"}
ARGS = {"first_k_dense_replace": 0}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `minimax_m2`. Releases hold no MTP layers, though `config.json` speaks of some."""
    name, fields = "minimax_m2", SPARSE_EXPERT_FIELDS
    return [ModelType(name, (name,), fields, names=NAMES, refused=REFUSED, noted=NOTED, args=ARGS)]


@hookimpl
def mscvt_split_rules() -> Sequence[Rule]:
    """The two norms are as long as all heads together, and whole on every rank."""
    return (
        whole("self_attention.q_layernorm.weight", "attention.q_norm", "(head channel)"),
        whole("self_attention.k_layernorm.weight", "attention.k_norm", "(group channel)"),
    )
