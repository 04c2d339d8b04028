"""Qwen3, dense: the plain decoder with a norm on each query and key head."""

from collections.abc import Sequence

from mscvt import DECODER, QK_NORM, ModelType, hookimpl

MSCVT_API = 2


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `qwen3`."""
    return [ModelType("qwen3", ("qwen3",), names={**DECODER, "attention": DECODER["attention"] | QK_NORM})]
