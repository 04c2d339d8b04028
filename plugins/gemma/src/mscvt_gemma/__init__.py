"""Gemma 2: four norms in each layer, whose weights are offsets from one; the head is the embedding."""

from collections.abc import Sequence

from mscvt import ATTENTION, DECODER, ModelType, count, flag, hookimpl, in_layers, number

MSCVT_API = 2

NORMS = {
    "norm.input": "input_layernorm.weight",
    "norm.post_attention": "post_attention_layernorm.weight",
    "norm.pre_mlp": "pre_feedforward_layernorm.weight",
    "norm.post_mlp": "post_feedforward_layernorm.weight",
}
SETTINGS = {
    "query_pre_attn_scalar": count("query_pre_attn_scalar", default=256),
    "attn_logit_softcapping": number("attn_logit_softcapping", default=None),
    "output_logit_softcapping": number("final_logit_softcapping", default=None),
    "interleave_sliding_window": count("sliding_window", default=None),
}
FIELDS = {"tie_word_embeddings": flag("tie_word_embeddings", default=True), **SETTINGS}
SWITCHES = ("add_rmsnorm_offset", "gelu_tanh", "input_embeds_norm")
REFUSED = {
    "transformer_impl": "models are trained with local modules alone",
    "dialect": "models have norms behind attention and MLP, and megatron-core has none there",
}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `gemma2`."""
    names = {**DECODER, "attention": ATTENTION | in_layers(NORMS)}
    args = dict.fromkeys(SWITCHES, True) | {"swiglu": False}
    flags = ("--spec mindspeed_llm.tasks.models.spec.gemma2_spec layer_spec", *SWITCHES, *SETTINGS)
    return [ModelType("gemma2", ("gemma2",), FIELDS, names=names, refused=REFUSED, args=args, flags=flags)]
