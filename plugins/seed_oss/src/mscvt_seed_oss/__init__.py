"""Seed-OSS: the plain decoder, with the biases in attention that the configuration speaks of."""

from collections.abc import Mapping, Sequence
from typing import Any

from mscvt import DECODER, QKV_BIAS, Hyperparameters, Layer, ModelType, flag, hookimpl

MSCVT_API = 2

FIELDS = {
    "add_qkv_bias": flag("attention_bias", default=True),
    "add_dense_bias": flag("attention_out_bias", default=False),
}
BIASES = {
    "add_qkv_bias": QKV_BIAS,
    "add_dense_bias": {"attention.proj_bias": "model.layers.{layer}.self_attn.o_proj.bias"},
}


def _args(hyperparameters: Hyperparameters, _layers: Sequence[Layer]) -> Mapping[str, Any]:
    return {name: hyperparameters[name] for name in BIASES}


def _flags(hyperparameters: Hyperparameters) -> Sequence[str]:
    return [f"--{name.replace('_', '-')}" for name in BIASES if hyperparameters[name]]


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `seed-oss`."""
    return [ModelType("seed-oss", ("seed_oss",), FIELDS, args=_args, flags=_flags)]


@hookimpl
def mscvt_names(block: str, hyperparameters: Hyperparameters) -> Mapping[str, str] | None:
    """The plain decoder's names, and those of the biases that there are."""
    if block != "attention":
        return DECODER.get(block)
    biases = [names for name, names in BIASES.items() if hyperparameters[name]]
    return {role: name for names in (DECODER["attention"], *biases) for role, name in names.items()}
