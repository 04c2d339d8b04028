"""Qwen3, dense: the plain decoder with a norm on each query and key head."""

from collections.abc import Mapping, Sequence

from mscvt import DECODER, QK_NORM, ModelType, hookimpl

MSCVT_API = 2


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `qwen3`."""
    return [ModelType("qwen3", config_model_types=("qwen3",))]


@hookimpl
def mscvt_names(block: str) -> Mapping[str, str] | None:
    """The plain decoder's names and the two norms."""
    return {**DECODER, "attention": DECODER["attention"] | QK_NORM}.get(block)
