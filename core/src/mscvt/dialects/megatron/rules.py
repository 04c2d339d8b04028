"""The tables of megatron-core's local and Transformer-Engine specs; every option that matters is decided here.

Source: megatron/core/models/gpt/gpt_layer_specs.py and gpt_model.py, and their state dicts of versions 0.10 to 0.19.
"""

from __future__ import annotations

from collections.abc import Sequence

from mscvt.dialects.dialect import End, Place, Rules
from mscvt.dialects.megatron.dist import in_one_piece
from mscvt.dialects.megatron.rule_blocks import Blocks
from mscvt.dialects.megatron.versions import NAMED_TRANSFORMER_LAYER, minor
from mscvt.dialects.options import MEGATRON, Options
from mscvt.dialects.rule_tables import FUSED_NORMS, MTP_INPUT, NORMS, ROUTER
from mscvt.layout.rules import TENSOR, whole
from mscvt.model.family import Hyperparameters

_MTP = {"mtp.layers.{layer}.": (*MTP_INPUT, whole("final_layernorm.weight", "mtp.final_norm", "hidden"))}
_MODULES_WITH_STATE = frozenset(
    {"linear_qkv", "linear_proj", "linear_fc1", "linear_fc2", "q_layernorm", "k_layernorm", "kv_layernorm"}
    | {"linear_q_proj", "linear_q_down_proj", "linear_q_up_proj", "linear_kv_down_proj", "linear_kv_up_proj"}
    | {"in_proj", "out_proj", "final_norm"}
    | {"input_layernorm", "pre_mlp_layernorm", "final_layernorm", "enorm", "hnorm", "eh_proj"}
)
"""Transformer Engine's modules that keep a state besides their weights."""


def rules(options: Options, h: Hyperparameters) -> Rules:
    """The tables for these options."""
    options = in_one_piece(options)
    groups, tensor = h.get("num_query_groups"), options.target_tensor_parallel_size or 1
    # transformer/attention.py: ranks that outnumber the groups hold equal runs of rows, and gather them
    cuts = {"group slot channel": TENSOR} if groups and tensor > groups else {"group": TENSOR}
    blocks = Blocks(MEGATRON, cuts, options=options)
    is_fused = options.transformer_impl == "transformer_engine"
    embedding = blocks.vocabulary("embedding.word_embeddings.weight", "embedding", " hidden")
    norm_place: Place = "last_layer" if options.mtp_num_layers else "last"
    last = [
        End(whole("decoder.final_layernorm.weight", "norm.final", "hidden"), place=norm_place),
        End(whole("decoder.final_layernorm.bias", "norm.final_bias", "hidden"), place=norm_place),
    ]
    if h.get("tie_word_embeddings"):
        last.append(End(blocks.vocabulary("output_layer.weight", "embedding", " hidden"), is_copy=True))
    else:
        last.append(End(blocks.vocabulary("output_layer.weight", "head", " hidden")))
    if options.mtp_num_layers:
        last.append(End(embedding, is_copy=True, place="mtp"))
    inner = "transformer_layer" if minor(options) <= NAMED_TRANSFORMER_LAYER else "mtp_model_layer"
    return Rules(
        layer=(
            *(FUSED_NORMS if is_fused else ()),
            (
                *NORMS,
                *blocks.attention("self_attention.", "attention"),
                *blocks.gated_mlp("mlp.", "mlp", "ffn"),
                *blocks.mlp_biases("mlp.", "mlp", "ffn"),
                *ROUTER,
                *blocks.gated_mlp("mlp.shared_experts.", "moe.shared", "shared_ffn"),
                *blocks.experts(),
                *(blocks.latent_attention("self_attention.", "mla") if h.get("q_lora_rank") else ()),
            ),
            (blocks.whole_query("self_attention.", "mla"), *blocks.plain_mlp("mlp.", "mlp", "ffn")),
            blocks.latent_attention("self_attention.", "mla"),
        ),
        first=(End(embedding),),
        last=tuple(last),
        mtp=_MTP,
        decoder_prefix="decoder.layers.{layer}.",
        mtp_prefix=f"mtp.layers.{{layer}}.{inner}.",
        blocks=blocks,
    )


def empty_states(options: Options, keys: Sequence[str]) -> Sequence[str]:
    """Transformer Engine's modules keep a state beside their weights, which may be None; local modules do without."""
    options = in_one_piece(options)
    if options.transformer_impl != "transformer_engine":
        return ()
    modules = dict.fromkeys(key.rpartition(".")[0] for key in keys)
    states = [module for module in modules if module.rpartition(".")[2] in _MODULES_WITH_STATE]
    attentions = [
        f"{module.removesuffix('linear_proj')}core_attention"
        for module in states
        if module.endswith(".self_attention.linear_proj")
    ]
    return [f"{module}._extra_state" for module in (*states, *attentions)]
