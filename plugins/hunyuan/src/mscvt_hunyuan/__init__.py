"""Tencent Hy3: grouped-query attention with a norm on each head, a dense layer, then experts."""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from mscvt import (
    DECODER,
    EXPERT_FIELDS,
    EXPERTS,
    MTP_ENDS,
    QK_NORM,
    ModelType,
    MscvtError,
    hookimpl,
)

MSCVT_API = 2

_LAYER = "model.layers.{layer}."
_EXPERTS = EXPERTS | {
    "moe.router": _LAYER + "mlp.router.gate.weight",
    "moe.router_bias": _LAYER + "mlp.expert_bias",
    **{f"moe.shared.{half}": f"{_LAYER}mlp.shared_mlp.{half}_proj.weight" for half in ("gate", "up", "down")},
}
BLOCKS = {
    **DECODER,
    "attention": DECODER["attention"] | QK_NORM,
    "moe": _EXPERTS,
    "mtp": MTP_ENDS | {"mtp.final_norm": _LAYER + "final_layernorm.weight"},
    "mtp_repeats": {"head": _LAYER + "shared_head.weight"},
}


def _count_dense_layers(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Since transformers 5, it has the kind of each layer in place of the number of dense ones."""
    kinds = config.get("mlp_layer_types")
    if not isinstance(kinds, list):
        return config
    dense = len(list(takewhile(lambda kind: kind == "dense", kinds)))
    if any(kind != "sparse" for kind in kinds[dense:]):
        raise MscvtError(
            "config.json: mlp_layer_types has something else than dense layers, then sparse ones",
            hint="Training knows only the number of leading dense layers.",
        )
    return {**config, "first_k_dense_replace": dense}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `HYV3`."""
    refused = {"transformer_impl": "models are trained with local modules alone"}
    args = {"moe_layer_freq": 1}
    return [ModelType("HYV3", ("hy_v3",), EXPERT_FIELDS, respell=_count_dense_layers, refused=refused, args=args)]


@hookimpl
def mscvt_names(block: str) -> Mapping[str, str] | None:
    """An MTP layer may repeat the head, and has no embedding of its own."""
    return BLOCKS.get(block)
