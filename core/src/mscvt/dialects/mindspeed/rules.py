"""The tables of MindSpeed-LLM's `local` and `transformer_engine` modules; every option that matters is decided here."""

from __future__ import annotations

from dataclasses import replace

from mscvt.dialects.dialect import End, Rules
from mscvt.dialects.mindspeed.options import Options
from mscvt.dialects.mindspeed.rule_blocks import Blocks
from mscvt.layout.rules import TENSOR, Rule, whole

_ROUTER = (
    whole("mlp.router.weight", "moe.router", "expert hidden"),
    whole("mlp.router.expert_bias", "moe.router_bias", "expert", keeps_dtype=True),
    whole("mlp.shared_experts.gate_weight", "moe.shared_gate", "1 hidden"),
)
_NORMS = (
    whole("input_layernorm.weight", "norm.input", "hidden"),
    whole("input_layernorm.bias", "norm.input_bias", "hidden"),
    whole("pre_mlp_layernorm.weight", "norm.pre_mlp", "hidden"),
    whole("pre_mlp_layernorm.bias", "norm.pre_mlp_bias", "hidden"),
    whole("post_attn_norm.weight", "norm.post_attention", "hidden"),
    whole("post_mlp_layernorm.weight", "norm.post_mlp", "hidden"),
)


def _fused(key: str, role: str, *beside: str) -> tuple[Rule, ...]:
    """A norm in the module that follows it, in layers that have this module."""
    return tuple(replace(whole(key, role, "hidden"), beside=frozenset({other})) for other in beside)


_FUSED_NORMS = (
    *_fused("self_attention.linear_qkv.layer_norm_weight", "norm.input", "attention.q", "attention.qkv"),
    *_fused("mlp.linear_fc1.layer_norm_weight", "norm.pre_mlp", "mlp.gate", "mlp.gate_up"),
)
_MTP = {
    "mtp.layers.{layer}.": (
        whole("enorm.weight", "mtp.embedding_norm", "hidden"),
        whole("hnorm.weight", "mtp.hidden_norm", "hidden"),
        whole("eh_proj.weight", "mtp.proj", "joined_out joined", cuts={"joined_out": TENSOR}),
    ),
    "mtp.final_layernorms.{layer}.": (whole("weight", "mtp.final_norm", "hidden"),),
}


def rules(options: Options, *, is_tied: bool) -> Rules:
    """The tables for these options."""
    blocks = Blocks(options)
    fused = options.transformer_impl == "transformer_engine"
    many_stages = (options.target_pipeline_parallel_size or 1) > 1
    embedding = blocks.vocabulary("embedding.word_embeddings.weight", "embedding", " hidden")
    final_norm = "final_layernorm" if options.mtp_num_layers else "decoder.final_layernorm"
    last = [
        End(whole(f"{final_norm}.weight", "norm.final", "hidden")),
        End(whole(f"{final_norm}.bias", "norm.final_bias", "hidden")),
        End(blocks.vocabulary("output_layer.bias", "head_bias", "")),
    ]
    if not is_tied:
        last.append(End(blocks.vocabulary("output_layer.weight", "head", " hidden")))
    elif many_stages:  # the embedding of the first stage is out of the last one's reach
        last.append(End(blocks.vocabulary("output_layer.weight", "embedding", " hidden"), is_copy=True))
    if many_stages and options.mtp_num_layers:
        last.append(End(embedding, is_copy=True))
    return Rules(
        layer=(
            _FUSED_NORMS if fused else (),
            (
                *_NORMS,
                *blocks.attention("self_attention.", "attention"),
                *blocks.latent_attention("self_attention.", "mla"),
                *blocks.indexer("self_attention.dsa_indexer.", "indexer"),
                *blocks.gated_mlp("mlp.", "mlp", "ffn"),
                *_ROUTER,
                *blocks.gated_mlp("mlp.shared_experts.", "moe.shared", "shared_ffn"),
                *blocks.experts(),
            ),
            blocks.plain_mlp("mlp.", "mlp", "ffn"),
        ),
        first=(End(embedding),),
        last=tuple(last),
        mtp=_MTP,
        decoder_prefix="decoder.layers.{layer}.",
        mtp_prefix="mtp.layers.{layer}.transformer_layer.",
        blocks=blocks,
    )
