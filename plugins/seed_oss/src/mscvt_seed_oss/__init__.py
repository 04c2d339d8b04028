"""Seed-OSS: the plain decoder, with the biases in attention that the configuration speaks of."""

from collections.abc import Sequence

from mscvt import DECODER, PROJ_BIAS, QKV_BIAS, ModelType, flag, hookimpl

MSCVT_API = 2

FIELDS = {
    "add_qkv_bias": flag("attention_bias", default=True),
    "add_dense_bias": flag("attention_out_bias", default=False),
}
BIASES = {"add_qkv_bias": {"attention": QKV_BIAS}, "add_dense_bias": {"attention": PROJ_BIAS}}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `seed-oss`."""
    return [ModelType("seed-oss", ("seed_oss",), FIELDS, names=DECODER, names_if=BIASES)]
