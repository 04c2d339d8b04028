"""A plugin of two families that may have biases in every projection: an MLP without a gate, and one with a gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from mscvt import (
    ATTENTION,
    DECODER,
    ENDS,
    MLP_BIAS,
    NORMS,
    PROJ_BIAS,
    QKV_BIAS,
    ModelType,
    flag,
    hookimpl,
    in_layers,
    number,
)

MSCVT_API = 2
POINT = EntryPoint("biased", "biased_plugin", "mscvt")

NORM_BIASES = {"norm.input_bias": "input_layernorm.bias", "norm.pre_mlp_bias": "post_attention_layernorm.bias"}
PLAIN = {
    "model": ENDS | {"norm.final_bias": "model.norm.bias"},
    "attention": ATTENTION | NORMS | in_layers(NORM_BIASES),
    "mlp": in_layers({"mlp.up": "mlp.c_fc.weight", "mlp.down": "mlp.c_proj.weight"}),
}
PLAIN_BIASES = {
    "attention": QKV_BIAS | PROJ_BIAS,
    "mlp": in_layers({"mlp.up_bias": "mlp.c_fc.bias", "mlp.down_bias": "mlp.c_proj.bias"}),
}
PLAIN_FIELDS = {
    "norm_epsilon": number("norm_epsilon", default=1e-5),
    "tie_word_embeddings": flag("tie_word_embeddings", default=True),
    "add_bias_linear": flag("use_bias", default=True),
}
GATED_FIELDS = {"add_qkv_bias": flag("attention_bias", default=False), "mlp_bias": flag("mlp_bias", default=False)}
GATED_BIASES = {"add_qkv_bias": {"attention": QKV_BIAS | PROJ_BIAS}, "mlp_bias": {"mlp": MLP_BIAS}}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `starcoder2` and `smollm3`, whose layers must all have rotary positions here."""
    return [
        ModelType(
            "starcoder2",
            ("starcoder2",),
            PLAIN_FIELDS,
            names=PLAIN,
            names_if={"add_bias_linear": PLAIN_BIASES},
        ),
        ModelType("smollm3", ("smollm3",), GATED_FIELDS, names=DECODER, names_if=GATED_BIASES),
    ]


@contextmanager
def installed(folder: Path) -> Iterator[None]:
    """Have the environment declare this module as a plugin, as an installed distribution does."""
    information = folder / "mscvt_biased-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: mscvt-biased\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[mscvt]\n{POINT.name} = {POINT.value}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield
