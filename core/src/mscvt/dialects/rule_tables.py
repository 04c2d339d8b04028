"""Rules outside of attention and MLP that all stacks share which build on megatron-core."""

from __future__ import annotations

from dataclasses import replace

from mscvt.layout.rules import TENSOR, Rule, whole

ROUTER = (
    whole("mlp.router.weight", "moe.router", "expert hidden"),
    whole("mlp.router.expert_bias", "moe.router_bias", "expert", keeps_dtype=True),
    whole("mlp.shared_experts.gate_weight", "moe.shared_gate", "1 hidden"),
)
NORMS = (
    whole("input_layernorm.weight", "norm.input", "hidden"),
    whole("input_layernorm.bias", "norm.input_bias", "hidden"),
    whole("pre_mlp_layernorm.weight", "norm.pre_mlp", "hidden"),
    whole("pre_mlp_layernorm.bias", "norm.pre_mlp_bias", "hidden"),
)
MTP_INPUT = (
    whole("enorm.weight", "mtp.embedding_norm", "hidden"),
    whole("hnorm.weight", "mtp.hidden_norm", "hidden"),
    whole("eh_proj.weight", "mtp.proj", "joined_out joined", cuts={"joined_out": TENSOR}),
)
"""What an MTP layer makes of the embedding and of the hidden state."""


def fused(key: str, role: str, *beside: str) -> tuple[Rule, ...]:
    """A norm in the module that follows it, in layers that have this module."""
    return tuple(replace(whole(key, role, "hidden"), beside=frozenset({other})) for other in beside)


FUSED_NORMS = (
    (
        *fused("self_attention.linear_qkv.layer_norm_weight", "norm.input", "attention.q", "attention.qkv"),
        *fused("self_attention.linear_qkv.layer_norm_bias", "norm.input_bias", "attention.q", "attention.qkv"),
        *fused("mlp.linear_fc1.layer_norm_weight", "norm.pre_mlp", "mlp.gate", "mlp.gate_up"),
        *fused("mlp.linear_fc1.layer_norm_bias", "norm.pre_mlp_bias", "mlp.gate", "mlp.gate_up"),
    ),
    (
        *fused("mlp.linear_fc1.layer_norm_weight", "norm.pre_mlp", "mlp.up"),
        *fused("mlp.linear_fc1.layer_norm_bias", "norm.pre_mlp_bias", "mlp.up"),
    ),
)
"""Tables in order: the second is of an MLP without a gate, whose norm the first has not taken.

Source: megatron-core's gpt_layer_specs.py, where Transformer Engine's modules normalise what they take.
"""
