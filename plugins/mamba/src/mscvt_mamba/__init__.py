"""Mamba-2: layers of a state space model alone, in transformers' form and in the one of its authors."""

from collections.abc import Mapping, Sequence
from typing import Any

from mscvt import (
    TENSOR,
    Hyperparameters,
    Layer,
    ModelType,
    MscvtError,
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

_LAYER = "backbone.layers.{layer}."
_MIXER = ("A_log", "D", "dt_bias", "in_proj.weight", "conv1d.weight", "conv1d.bias", "norm.weight", "out_proj.weight")
BLOCKS: Mapping[str, Mapping[str, str]] = {
    "model": {
        "embedding": "backbone.embeddings.weight",
        "norm.final": "backbone.norm_f.weight",
        "head": "lm_head.weight",
    },
    "mixer": {
        "norm.input": _LAYER + "norm.weight",
        **{f"mixer.{name}": f"{_LAYER}mixer.{name}" for name in _MIXER},
    },
}
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
        )
    ]


@hookimpl
def mscvt_names(block: str) -> Mapping[str, str] | None:
    """Neither attention nor an MLP."""
    return BLOCKS.get(block)


@hookimpl
def mscvt_layers(hyperparameters: Hyperparameters) -> Sequence[Layer]:
    """All layers are alike."""
    return [Layer(i, ("mixer",)) for i in range(hyperparameters["num_layers"])]


@hookimpl
def mscvt_split_rules(blocks: RuleBlocks) -> Sequence[Rule]:
    """Heads and groups are cut; what is stacked of pieces (z, x, B, C, dt) is cut in each piece.

    In megatron-core's own spec the norm is in the projection that follows it.
    """
    norm = "mixer.in_proj.layer_norm_weight" if blocks.dialect == "megatron" else "norm.weight"
    heads, groups, cuts = "mamba_num_heads", "mamba_num_groups", {"mamba_num_heads": TENSOR}
    inner = f"({heads} mamba_head_dim)"
    both = cuts | {groups: TENSOR}
    states = f"(half {groups} mamba_state_dim)"
    return (
        whole("decoder.final_norm.weight", "norm.final", "hidden"),
        whole(norm, "norm.input", "hidden"),
        *(whole(f"mixer.{name}", f"mixer.{name}", heads, cuts=cuts) for name in ("A_log", "D", "dt_bias")),
        whole("mixer.norm.weight", "mixer.norm.weight", inner, cuts=cuts),
        whole("mixer.out_proj.weight", "mixer.out_proj.weight", f"hidden {inner}", cuts=cuts),
        whole(
            "mixer.in_proj.weight",
            "mixer.in_proj.weight",
            f"(half {heads} mamba_head_dim) hidden | {states} hidden | {heads} hidden",
            cuts=both,
        ),
        whole(
            "mixer.conv1d.weight",
            "mixer.conv1d.weight",
            f"{inner} 1 mamba_d_conv | {states} 1 mamba_d_conv",
            cuts=both,
        ),
        whole("mixer.conv1d.bias", "mixer.conv1d.bias", f"{inner} | {states}", cuts=both),
    )
