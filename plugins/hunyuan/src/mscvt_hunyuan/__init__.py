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
    gated_mlp,
    hookimpl,
    in_layers,
)

MSCVT_API = 2

OTHERS = {
    "moe.router": "mlp.router.gate.weight",
    "moe.router_bias": "mlp.expert_bias",
    **gated_mlp("moe.shared", "mlp.shared_mlp."),
}
NAMES = {
    **DECODER,
    "attention": DECODER["attention"] | QK_NORM,
    "moe": EXPERTS | in_layers(OTHERS),
    "mtp": MTP_ENDS | in_layers({"mtp.final_norm": "final_layernorm.weight"}),
    "mtp_repeats": in_layers({"head": "shared_head.weight"}),
}
REFUSED = {"transformer_impl": "models are trained with local modules alone"}
ARGS = {"moe_layer_freq": 1}


def _respell(config: Mapping[str, Any]) -> Mapping[str, Any]:
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
    """Serve `HYV3`. An MTP layer may repeat the head, and has no embedding of its own."""
    return [ModelType("HYV3", ("hy_v3",), EXPERT_FIELDS, names=NAMES, respell=_respell, refused=REFUSED, args=ARGS)]
