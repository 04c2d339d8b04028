"""Qwen3, dense: the plain decoder with a norm on each query and key head."""

from collections.abc import Mapping, Sequence

from mscvt import DECODER, DENSE, MODEL, ModelType, hookimpl

MSCVT_API = 1

NAMES = {
    MODEL: DECODER[MODEL],
    DENSE: {
        **DECODER[DENSE],
        "attention.q_norm": "model.layers.{layer}.self_attn.q_norm.weight",
        "attention.k_norm": "model.layers.{layer}.self_attn.k_norm.weight",
    },
}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `qwen3`."""
    return [ModelType("qwen3", config_model_types=("qwen3",))]


@hookimpl
def mscvt_names(kind: str) -> Mapping[str, str] | None:
    """The plain decoder's names and the two norms."""
    return NAMES.get(kind)
