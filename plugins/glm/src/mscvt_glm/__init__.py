"""GLM-4.5 and GLM-4.5-Air: grouped-query attention and experts. GLM-5: latent attention with a shared indexer."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mscvt import (
    DECODER,
    EXPERT_FIELDS,
    EXPERTS,
    INDEXER,
    LATENT_ATTENTION,
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
    MscvtError,
    count,
    flag,
    hookimpl,
    number,
    words,
)

MSCVT_API = 2

_MOE = EXPERTS | SHARED_EXPERTS | ROUTER_BIAS
_GLM45 = {**DECODER, "moe": _MOE, "bias": QKV_BIAS, "qk_norm": QK_NORM, "mtp": MTP_ENDS | MTP_COPIES}
_GLM5 = {**DECODER, "attention": NORMS | LATENT_ATTENTION, "indexer": INDEXER, "moe": _MOE, "mtp": MTP_ENDS}
BLOCKS: Mapping[str, Mapping[str, Mapping[str, str]]] = {"glm45": _GLM45, "glm45-air": _GLM45, "glm5": _GLM5}

_GLM45_FIELDS = {
    "add_qkv_bias": flag("attention_bias", default=False),
    "qk_layernorm": flag("use_qk_norm", default=False),
    "partial_rotary_factor": number("partial_rotary_factor", "rope_parameters.partial_rotary_factor", default=0.5),
}
_LETTERS = {"F": "full", "S": "shared"}
_SIZES = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
_GLM5_FIELDS = {
    **{name: count(name) for name in (*_SIZES, "index_n_heads", "index_head_dim", "index_topk")},
    "indexer_types": words("indexer_types", default=None),
    "index_topk_freq": count("index_topk_freq", default=1),
    "index_skip_topk_offset": count("index_skip_topk_offset", default=2, least=0),
}


def _is_air(config: Mapping[str, Any]) -> bool:
    return config.get("first_k_dense_replace") == 1


def _is_large(config: Mapping[str, Any]) -> bool:
    return not _is_air(config)


def _spell_out_indexers(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The list may also be given as a pattern, such as FFFSS."""
    pattern = config.get("index_topk_pattern")
    if config.get("indexer_types") is not None or not isinstance(pattern, (str, list)):
        return config
    kinds = [_LETTERS.get(letter, letter) for letter in pattern] if isinstance(pattern, str) else pattern
    return {**config, "indexer_types": kinds}


def _glm45_args(h: Hyperparameters, _layers: Sequence[Layer]) -> Mapping[str, Any]:
    return {"add_qkv_bias": True} if h["add_qkv_bias"] else {}


def _glm45_flags(h: Hyperparameters) -> Sequence[str]:
    return [f"--rotary-percent {h['partial_rotary_factor']}", *(["--add-qkv-bias"] if h["add_qkv_bias"] else [])]


def _glm5_args(_h: Hyperparameters, layers: Sequence[Layer]) -> Mapping[str, Any]:
    decoder = [layer for layer in layers if layer.mtp is None]
    types = ["full" if "indexer" in layer.kind else "shared" for layer in decoder]
    return {"enable_dsa_indexer": True, "indexer_types": types}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve the three; GLM-4.5 and Air share a `model_type`, and training tells them apart by their dense layers."""
    fields = {**EXPERT_FIELDS, **_GLM45_FIELDS}
    glm45 = ModelType("glm45", ("glm4_moe",), fields, _is_large, args=_glm45_args, flags=_glm45_flags)
    fields = {**EXPERT_FIELDS, **_GLM5_FIELDS}
    return [
        glm45,
        replace(glm45, name="glm45-air", matches=_is_air),
        ModelType(
            "glm5",
            ("glm_moe_dsa",),
            fields,
            respell=_spell_out_indexers,
            refused={"dialect": "models have indexers, whose names in megatron-core are not known"},
            args=_glm5_args,
        ),
    ]


@hookimpl
def mscvt_names(model_type: str, block: str) -> Mapping[str, str] | None:
    """GLM-4.5 repeats the embedding and the head in its MTP layer, GLM-5 does not."""
    return BLOCKS[model_type].get(block)


@hookimpl
def mscvt_layers(model_type: str, hyperparameters: Hyperparameters) -> Sequence[Layer]:
    """Dense layers first; biases, norms and indexers are blocks of their own."""
    h = hyperparameters
    size = h["num_layers"]
    if model_type == "glm5":
        full = _full_indexers(h)
    else:
        beside = (*(["bias"] if h["add_qkv_bias"] else []), *(["qk_norm"] if h["qk_layernorm"] else []))
    layers = []
    for i in range(size + h.get("mtp_num_layers", 0)):
        if model_type == "glm5":
            beside = ("indexer",) if i >= size or full[i] else ()
        mlp = "mlp" if i < min(size, h["first_k_dense_replace"]) else "moe"
        layers.append(Layer(i, ("attention", *beside, mlp), mtp=i - size if i >= size else None))
    return layers


def _full_indexers(h: Hyperparameters) -> list[bool]:
    """Which decoder layers choose tokens themselves; the others take the choice of the one before them.

    Raises:
        MscvtError: Where the list in `config.json` is too short or says something else.
    """
    size, types = h["num_layers"], h.get("indexer_types")
    if types is None:
        step, offset = h["index_topk_freq"], h["index_skip_topk_offset"]
        return [max(i + 1 - offset, 0) % step == 0 for i in range(size)]
    if len(types) < size or not {"full", "shared"} >= set(types):
        raise MscvtError(
            f"the indexers of {size} layers are given as {' '.join(types):.200}, expected full or shared for each",
            hint="Mend indexer_types or index_topk_pattern in config.json.",
        )
    return [kind == "full" for kind in types[:size]]
