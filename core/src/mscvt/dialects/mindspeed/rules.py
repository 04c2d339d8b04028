"""The tables of MindSpeed-LLM's `local` and `transformer_engine` modules; every option that matters is decided here."""

from __future__ import annotations

from collections.abc import Sequence

from mscvt.dialects.dialect import End, Rules
from mscvt.dialects.mindspeed.rule_blocks import Blocks
from mscvt.dialects.options import MINDSPEED, Options
from mscvt.dialects.rule_tables import FUSED_NORMS, MTP_INPUT, NORMS, ROUTER
from mscvt.layout.rules import whole
from mscvt.model.family import Hyperparameters

_NORMS = (
    *NORMS,
    whole("post_attn_norm.weight", "norm.post_attention", "hidden"),
    whole("post_mlp_layernorm.weight", "norm.post_mlp", "hidden"),
)
_MTP = {
    "mtp.layers.{layer}.": MTP_INPUT,
    "mtp.final_layernorms.{layer}.": (whole("weight", "mtp.final_norm", "hidden"),),
}


def rules(options: Options, h: Hyperparameters) -> Rules:
    """The tables for these options."""
    blocks = Blocks(MINDSPEED, options=options)
    fused = options.transformer_impl == "transformer_engine"
    many_stages = (options.target_pipeline_parallel_size or 1) > 1
    embedding = blocks.vocabulary("embedding.word_embeddings.weight", "embedding", " hidden")
    final_norm = "final_layernorm" if options.mtp_num_layers else "decoder.final_layernorm"
    last = [
        End(whole(f"{final_norm}.weight", "norm.final", "hidden")),
        End(whole(f"{final_norm}.bias", "norm.final_bias", "hidden")),
        End(blocks.vocabulary("output_layer.bias", "head_bias", "")),
    ]
    if not h.get("tie_word_embeddings"):
        last.append(End(blocks.vocabulary("output_layer.weight", "head", " hidden")))
    elif many_stages:  # the embedding of the first stage is out of the last one's reach
        last.append(End(blocks.vocabulary("output_layer.weight", "embedding", " hidden"), is_copy=True))
    if many_stages and options.mtp_num_layers:
        last.append(End(embedding, is_copy=True, place="mtp"))
    return Rules(
        layer=(
            *(FUSED_NORMS if fused else ()),
            (
                *_NORMS,
                *blocks.attention("self_attention.", "attention"),
                *blocks.latent_attention("self_attention.", "mla"),
                *blocks.indexer("self_attention.dsa_indexer.", "indexer"),
                *blocks.gated_mlp("mlp.", "mlp", "ffn"),
                *blocks.mlp_biases("mlp.", "mlp", "ffn"),
                *ROUTER,
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


def empty_states(options: Options, keys: Sequence[str]) -> Sequence[str]:  # noqa: ARG001  # whatever there is
    """None: the training loader does without."""
    return ()
