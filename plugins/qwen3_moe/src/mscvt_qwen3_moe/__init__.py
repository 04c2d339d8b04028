"""Qwen3-MoE: Qwen3's attention, and experts behind a router in most layers."""

from collections.abc import Sequence

from mscvt import DECODER, EXPERTS, QK_NORM, STEPPED_EXPERT_FIELDS, ModelType, hookimpl

MSCVT_API = 2

NAMES = {**DECODER, "attention": DECODER["attention"] | QK_NORM, "moe": EXPERTS}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `qwen3-moe`."""
    return [ModelType("qwen3-moe", ("qwen3_moe",), STEPPED_EXPERT_FIELDS, names=NAMES)]
