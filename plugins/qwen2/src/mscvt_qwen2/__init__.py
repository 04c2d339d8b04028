"""Qwen2 and Qwen2.5: biases of queries, keys and values; Qwen2-MoE has experts and one gated shared expert."""

from collections.abc import Sequence

from mscvt import (
    DECODER,
    EXPERTS,
    GATED_SHARED_EXPERT,
    QKV_BIAS,
    STEPPED_EXPERT_FIELDS,
    ModelType,
    count,
    flag,
    hookimpl,
)

MSCVT_API = 2

NAMES = {**DECODER, "attention": DECODER["attention"] | QKV_BIAS}
MOE_NAMES = {**DECODER, "moe": EXPERTS | GATED_SHARED_EXPERT}
MOE_FIELDS = {
    **STEPPED_EXPERT_FIELDS,
    "add_qkv_bias": flag("qkv_bias", default=True),
    "moe_shared_expert_intermediate_size": count("shared_expert_intermediate_size"),
}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `qwen25`, which is Qwen2 too, and `qwen2-moe`."""
    biases = {"add_qkv_bias": {"attention": QKV_BIAS}}
    return [
        ModelType("qwen25", ("qwen2",), names=NAMES),
        ModelType("qwen2-moe", ("qwen2_moe",), MOE_FIELDS, names=MOE_NAMES, names_if=biases),
    ]
