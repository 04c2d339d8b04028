"""Mamba-2: layers of a state space model alone, in transformers' form and in the one of its authors."""

from collections.abc import Mapping, Sequence
from typing import Any

from mscvt import (
    TENSOR,
    Hyperparameters,
    Layer,
    ModelType,
    MscvtError,
    Own,
    Rule,
    RuleBlocks,
    absent,
    count,
    flag,
    hookimpl,
    number,
    whole,
)

MSCVT_API = 2

_LAYER, _CUTS = "backbone.layers.{layer}.", {"mamba_num_heads": TENSOR}
_BOTH = {**_CUTS, "mamba_num_groups": TENSOR}
_INNER, _STATES = "(mamba_num_heads mamba_head_dim)", "(half mamba_num_groups mamba_state_dim)"
_IN = f"(half mamba_num_heads mamba_head_dim) hidden | {_STATES} hidden | mamba_num_heads hidden"
NAMES = {
    "model": {
        "embedding": "backbone.embeddings.weight",
        "norm.final": "backbone.norm_f.weight",
        "head": "lm_head.weight",
    },
    "mixer": {"norm.input": _LAYER + "norm.weight"},
}
_MIXER = {
    **dict.fromkeys(("A_log", "D", "dt_bias"), ("mamba_num_heads", _CUTS)),
    "in_proj.weight": (_IN, _BOTH),
    "conv1d.weight": (f"{_INNER} 1 mamba_d_conv | {_STATES} 1 mamba_d_conv", _BOTH),
    "conv1d.bias": (f"{_INNER} | {_STATES}", _BOTH),
    "norm.weight": (_INNER, _CUTS),
    "out_proj.weight": (f"hidden {_INNER}", _CUTS),
}
"""Heads and groups are cut; what is stacked of pieces (z, x, B, C, dt) is cut in each piece."""
OWN = {"mixer": [Own(f"mixer.{name}", f"{_LAYER}mixer.{name}", f"mixer.{name}", *how) for name, how in _MIXER.items()]}
FIELDS = {
    "num_layers": count("num_hidden_layers", "n_layer"),
    "hidden_size": count("hidden_size", "d_model"),
    "tie_word_embeddings": flag("tie_word_embeddings", "tie_embeddings", default=False),
    "norm_epsilon": number("layer_norm_epsilon", default=1e-5),
    **dict.fromkeys(("ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels"), absent()),
    "mamba_state_dim": count("state_size", "ssm_cfg.d_state", default=128),
    "mamba_num_groups": count("n_groups", "ssm_cfg.ngroups", default=8),
    "mamba_head_dim": count("head_dim", "ssm_cfg.headdim", default=64),
    "mamba_num_heads": count("num_heads", default=None),
    "mamba_expand": count("expand", "ssm_cfg.expand", default=2),
    "mamba_d_conv": count("conv_kernel", "ssm_cfg.d_conv", default=4),
}
_PIPELINES = "layers are divided among stages evenly or not at all"
REFUSED = {
    **dict.fromkeys(("num_layers_per_virtual_pipeline_stage", "num_layer_list", "noop_layers"), _PIPELINES),
    "schedules_method": _PIPELINES,
    "transformer_impl": "models are trained with local modules alone",
}


def _respelled(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The authors' form says the sizes of its layers in `ssm_cfg`, or not, and rounds the vocabulary up."""
    if "d_model" not in config:
        return config
    said, step, vocab = config.get("ssm_cfg"), config.get("pad_vocab_size_multiple", 8), config.get("vocab_size")
    respelled = {"tie_embeddings": True, **config}
    if "n_groups" not in config and not (isinstance(said, Mapping) and "ngroups" in said):
        respelled["n_groups"] = 1
    if isinstance(vocab, int) and isinstance(step, int) and step > 0:
        respelled["vocab_size"] = -(-vocab // step) * step
    return respelled


def _sizes(h: Hyperparameters) -> Mapping[str, int]:
    """The heads of a layer, which a configuration need not say.

    Raises:
        MscvtError: Where sizes contradict one another.
    """
    inner = h["mamba_expand"] * h["hidden_size"]
    heads, odd = divmod(inner, h["mamba_head_dim"])
    if odd or h.get("mamba_num_heads", heads) != heads:
        raise MscvtError(
            f"expand * hidden_size is {inner}, and there are {h.get('mamba_num_heads', 'no')} heads of "
            f"{h['mamba_head_dim']} channels",
            hint="num_heads * head_dim must be expand * hidden_size.",
        )
    return {"mamba_num_heads": heads}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `mamba2`."""
    return [
        ModelType(
            "mamba2",
            ("mamba2",),
            FIELDS,
            sizes=_sizes,
            respell=_respelled,
            spellings={"backbone.embedding.weight": "backbone.embeddings.weight"},
            refused=REFUSED,
            args={"position_embedding_type": "none"},
            dialects=("megatron",),
            names=NAMES,
            own=OWN,
        )
    ]


@hookimpl
def mscvt_layers(hyperparameters: Hyperparameters) -> Sequence[Layer]:
    """All layers are alike, without attention and without an MLP."""
    return [Layer(i, ("mixer",)) for i in range(hyperparameters["num_layers"])]


@hookimpl
def mscvt_split_rules(blocks: RuleBlocks) -> Sequence[Rule]:
    """In megatron-core's own spec the norm is in the projection that follows it."""
    norm = "mixer.in_proj.layer_norm_weight" if blocks.dialect == "megatron" else "norm.weight"
    return whole("decoder.final_norm.weight", "norm.final", "hidden"), whole(norm, "norm.input", "hidden")
