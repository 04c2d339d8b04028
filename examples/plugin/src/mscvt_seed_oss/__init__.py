"""Seed-OSS: the plain decoder with biases on queries, keys and values."""

from collections.abc import Mapping, Sequence

from mscvt import DECODER, DENSE, MODEL, TENSOR, ModelType, Part, Rule, hookimpl

MSCVT_API = 1

NAMES = {
    MODEL: DECODER[MODEL],
    DENSE: {
        **DECODER[DENSE],
        "attention.q_bias": "model.layers.{layer}.self_attn.q_proj.bias",
        "attention.k_bias": "model.layers.{layer}.self_attn.k_proj.bias",
        "attention.v_bias": "model.layers.{layer}.self_attn.v_proj.bias",
    },
}
QKV_BIAS = Rule(
    "self_attention.linear_qkv.bias",
    "(group slot channel)",
    parts=(
        Part("attention.q_bias", "(group slot channel)", at={"slot": (0, "queries")}),
        Part("attention.k_bias", "(group channel)", at={"slot": ("queries", 1)}),
        Part("attention.v_bias", "(group channel)", at={"slot": ("queries + 1", 1)}),
    ),
    cuts={"group": TENSOR},
)


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `seed-oss`."""
    return [ModelType("seed-oss", config_model_types=("seed_oss",), args={"add_qkv_bias": True})]


@hookimpl
def mscvt_names(kind: str) -> Mapping[str, str] | None:
    """The plain decoder's names and the three biases."""
    return NAMES.get(kind)


@hookimpl
def mscvt_split_rules() -> Sequence[Rule]:
    """One bias for queries, keys and values, laid out and cut as the weight is."""
    return [QKV_BIAS]
