"""Phi-3.5: projections packed into one tensor. Phi-3.5-MoE: biases everywhere, layer norms, experts w1, w3 and w2."""

from collections.abc import Mapping, Sequence
from typing import Any

from mscvt import (
    ATTENTION,
    ENDS,
    NORMS,
    PROJ_BIAS,
    QKV_BIAS,
    SPARSE_EXPERT_FIELDS,
    SPARSE_EXPERTS,
    ModelType,
    flag,
    hookimpl,
    in_layers,
    number,
    table,
)

MSCVT_API = 2

PACKED = {
    "model": ENDS,
    "attention": NORMS
    | in_layers({"attention.qkv": "self_attn.qkv_proj.weight", "attention.proj": "self_attn.o_proj.weight"}),
    "mlp": in_layers({"mlp.gate_up": "mlp.gate_up_proj.weight", "mlp.down": "mlp.down_proj.weight"}),
}
NORM_BIASES = {
    "norm.input_bias": "input_layernorm.bias",
    "norm.pre_mlp_bias": "post_attention_layernorm.bias",
}
MOE_NAMES = {
    "model": ENDS | {"norm.final_bias": "model.norm.bias"},
    "attention": NORMS | ATTENTION | in_layers(NORM_BIASES),
    "moe": SPARSE_EXPERTS,
}
BIASES = {
    "add_qkv_bias": {"attention": QKV_BIAS | PROJ_BIAS},
    "add_output_layer_bias": {"model": {"head_bias": "lm_head.bias"}},
}
FACTORS = {
    **{name: name for name in ("long_factor", "short_factor", "long_mscale", "short_mscale")},
    "original_max_position_embeddings": "rope_scaling_original_max_position_embeddings",
}
"""What a configuration says of rotary embeddings for long contexts -> what training calls it."""
ROPE = {
    "rotary_percent": number("partial_rotary_factor", "rope_parameters.partial_rotary_factor", default=1.0),
    "longrope": table("longrope", default=None),
}
MOE_FIELDS = {
    **SPARSE_EXPERT_FIELDS,
    **ROPE,
    "add_qkv_bias": flag("attention_bias", default=False),
    "add_output_layer_bias": flag("lm_head_bias", default=False),
}
MOE_FLAGS = ("--spec mindspeed_llm.tasks.models.spec.phi35_moe_spec layer_spec", "longrope")
MOE_REFUSED = {
    "transformer_impl": "models are trained with local modules alone",
    "dialect": "models choose experts in a way of their own, and megatron-core has no router for that",
}


def _respell(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rotary embedding's factors for long contexts, wherever the configuration has them, as training takes them."""
    rope = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(rope, Mapping) or "longrope" not in (rope.get("rope_type"), rope.get("type")):
        return config
    original = "original_max_position_embeddings"
    said = {**rope, original: rope.get(original) if config.get(original) is None else config[original]}
    longrope = {"rope_scaling_type": "longrope", "longrope_freqs_type": "outer"}
    for name, ours in FACTORS.items():
        if said.get(name) is not None:
            longrope[ours] = ",".join(map(str, said[name])) if isinstance(said[name], list) else str(said[name])
    return {**config, "longrope": longrope}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `phi3.5`, which is Phi-3 and Phi-4 too, and `phi3.5-moe`."""
    return [
        ModelType("phi3.5", ("phi3",), ROPE, respell=_respell, flags={"mindspeed": ("longrope",)}, names=PACKED),
        ModelType(
            "phi3.5-moe",
            ("phimoe",),
            MOE_FIELDS,
            respell=_respell,
            refused=MOE_REFUSED,
            args={"moe_flag": True},
            flags=MOE_FLAGS,
            names=MOE_NAMES,
            names_if=BIASES,
        ),
    ]
