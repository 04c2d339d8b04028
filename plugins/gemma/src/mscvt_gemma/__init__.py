"""Gemma 2: four norms in each layer, whose weights are offsets from one; the head is the embedding."""

from collections.abc import Mapping, Sequence

from mscvt import ATTENTION, DECODER, Hyperparameters, ModelType, count, flag, hookimpl, number

MSCVT_API = 2

NORMS = {
    "norm.input": "input_layernorm",
    "norm.post_attention": "post_attention_layernorm",
    "norm.pre_mlp": "pre_feedforward_layernorm",
    "norm.post_mlp": "post_feedforward_layernorm",
}
ATTENTION_NAMES = ATTENTION | {role: f"model.layers.{{layer}}.{name}.weight" for role, name in NORMS.items()}
BLOCKS = {**DECODER, "attention": ATTENTION_NAMES}

SETTINGS = {
    "query_pre_attn_scalar": count("query_pre_attn_scalar", default=256),
    "attn_logit_softcapping": number("attn_logit_softcapping", default=None),
    "output_logit_softcapping": number("final_logit_softcapping", default=None),
    "interleave_sliding_window": count("sliding_window", default=None),
}
FIELDS = {"tie_word_embeddings": flag("tie_word_embeddings", default=True), **SETTINGS}
SWITCHES = ("add_rmsnorm_offset", "gelu_tanh", "input_embeds_norm", "post_norm")


def _flags(hyperparameters: Hyperparameters) -> Sequence[str]:
    settings = {name: hyperparameters[name] for name in SETTINGS if name in hyperparameters}
    return [
        "--spec mindspeed_llm.tasks.models.spec.gemma2_spec layer_spec",
        *(f"--{name.replace('_', '-')}" for name in SWITCHES),
        *(f"--{name.replace('_', '-')} {value}" for name, value in settings.items()),
    ]


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `gemma2`."""
    args = dict.fromkeys(SWITCHES, True) | {"swiglu": False}
    refused = {
        "transformer_impl": "models are trained with local modules alone",
        "dialect": "models have norms behind attention and MLP, and megatron-core has none there",
    }
    return [ModelType("gemma2", ("gemma2",), FIELDS, refused=refused, args=args, flags=_flags)]


@hookimpl
def mscvt_names(block: str) -> Mapping[str, str] | None:
    """The plain decoder's names; what it calls the norm before the MLP is here the one after attention."""
    return BLOCKS.get(block)
