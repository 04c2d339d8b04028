"""GLM-4.5 and GLM-4.5-Air: grouped-query attention and experts. GLM-5: latent attention with a shared indexer."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mscvt import (
    DECODER,
    DENSE,
    EXPERT_FIELDS,
    EXPERTS,
    INDEXER,
    LATENT_ATTENTION,
    LATENT_FIELDS,
    MOE,
    MTP_COPIES,
    MTP_ENDS,
    NORMS,
    QK_NORM,
    QKV_BIAS,
    ROUTER_BIAS,
    SHARED_EXPERTS,
    Hyperparameters,
    Layer,
    ModelType,
    count,
    flag,
    hookimpl,
    number,
    same,
    words,
)

MSCVT_API = 2

_MOE = EXPERTS | SHARED_EXPERTS | ROUTER_BIAS
GLM45 = {**DECODER, "moe": _MOE, "mtp": MTP_ENDS | MTP_COPIES}
GLM45_PARTS = {"add_qkv_bias": {"attention": QKV_BIAS}, "qk_layernorm": {"attention": QK_NORM}}
GLM45_FIELDS = {
    **EXPERT_FIELDS,
    "add_qkv_bias": flag("attention_bias", default=False),
    "qk_layernorm": flag("use_qk_norm", default=False),
    "rotary_percent": number("partial_rotary_factor", "rope_parameters.partial_rotary_factor", default=0.5),
}
GLM5 = {**DECODER, "attention": NORMS | LATENT_ATTENTION, "indexer": INDEXER, "moe": _MOE, "mtp": MTP_ENDS}
GLM5_FIELDS = {
    **EXPERT_FIELDS,
    **LATENT_FIELDS,
    **same(count, "q_lora_rank", "index_n_heads", "index_head_dim", "index_topk"),
    "indexer_types": words("indexer_types", default=None, among=("full", "shared"), each_layer=True),
    "index_topk_freq": count("index_topk_freq", default=1),
    "index_skip_topk_offset": count("index_skip_topk_offset", default=2, least=0),
}
GLM5_REFUSED = {"dialect": "models have indexers, whose names in megatron-core are not known"}
_LETTERS = {"F": "full", "S": "shared"}


def _glm5_args(_h: Hyperparameters, layers: Sequence[Layer]) -> Mapping[str, Any]:
    decoder = [layer for layer in layers if layer.mtp is None]
    types = ["full" if "indexer" in layer.kind else "shared" for layer in decoder]
    return {"enable_dsa_indexer": True, "indexer_types": types}


def _spell_out_indexers(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The list may also be given as a pattern, such as FFFSS."""
    pattern = config.get("index_topk_pattern")
    if config.get("indexer_types") is not None or not isinstance(pattern, (str, list)):
        return config
    kinds = [_LETTERS.get(letter, letter) for letter in pattern] if isinstance(pattern, str) else pattern
    return {**config, "indexer_types": kinds}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve the three; GLM-4.5 and Air share a `model_type`, and training tells them apart by their dense layers.

    GLM-4.5 repeats the embedding and the head in its MTP layer, GLM-5 does not.
    """
    glm45 = ModelType("glm45", ("glm4_moe",), GLM45_FIELDS, names=GLM45, names_if=GLM45_PARTS)
    refused, respell = GLM5_REFUSED, _spell_out_indexers
    return [
        glm45,
        replace(glm45, name="glm45-air", matches=lambda config: config.get("first_k_dense_replace") == 1),
        ModelType("glm5", ("glm_moe_dsa",), GLM5_FIELDS, names=GLM5, respell=respell, refused=refused, args=_glm5_args),
    ]


@hookimpl
def mscvt_layers(model_type: str, hyperparameters: Hyperparameters) -> Sequence[Layer] | None:
    """Dense layers first; those of GLM-5 that choose tokens have an indexer, and MTP layers do."""
    if model_type != "glm5":
        return None
    h = hyperparameters
    size, step, offset = h["num_layers"], h["index_topk_freq"], h["index_skip_topk_offset"]
    types = h.get("indexer_types") or ["shared" if max(i + 1 - offset, 0) % step else "full" for i in range(size)]
    layers = []
    for i, kind in enumerate(types[:size]):
        usual = DENSE if i < h["first_k_dense_replace"] else MOE
        layers.append(Layer(i, (*usual, "indexer") if kind == "full" else usual))
    return layers + [Layer(size + m, (*MOE, "indexer"), mtp=m) for m in range(h["mtp_num_layers"])]
