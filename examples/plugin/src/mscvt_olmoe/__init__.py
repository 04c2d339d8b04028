"""OLMoE: experts in every layer, one norm for all query heads together and one for all key heads."""

from collections.abc import Sequence

from mscvt import DECODER, EXPERTS, QK_NORM, ModelType, Rule, count, hookimpl, whole

MSCVT_API = 2

NAMES = {**DECODER, "attention": DECODER["attention"] | QK_NORM, "moe": EXPERTS}
FIELDS = {
    "num_experts": count("num_experts", "num_local_experts"),
    "moe_intermediate_size": count("intermediate_size"),
}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `olmoe`. There are names for `mlp` too, which no layer has."""
    return [ModelType("olmoe", config_model_types=("olmoe",), fields=FIELDS, names=NAMES)]


@hookimpl
def mscvt_split_rules() -> Sequence[Rule]:
    """The norms are as long as all heads, and whole on every rank; the core's are as long as one."""
    return [
        whole("self_attention.q_layernorm.weight", "attention.q_norm", "(head channel)"),
        whole("self_attention.k_layernorm.weight", "attention.k_norm", "(group channel)"),
    ]
