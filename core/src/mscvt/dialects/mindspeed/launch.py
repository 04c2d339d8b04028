"""What the training script must be told, so that it builds the model of a converted checkpoint and loads it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mscvt.dialects.mindspeed.args_written import make_args
from mscvt.dialects.options import MINDSPEED, Options
from mscvt.model.family import Hyperparameters, Layer
from mscvt.model.options import flag, rows_in
from mscvt.plugins.family import Family
from mscvt.plugins.flags import told

_RENAMED = {
    "moe_intermediate_size": "--moe-ffn-hidden-size",
    "router_bias": "--moe-router-enable-expert-bias",
}
"""Arguments that a script gives under another name."""
_EVERYWHERE = (
    "hidden_size",
    "ffn_hidden_size",
    "max_position_embeddings",
    "normalization",
    "norm_epsilon",
    "post_norm",
)
_ATTENTION = (
    *("num_attention_heads", "group_query_attention", "num_query_groups", "kv_channels", "qk_layernorm"),
    *("add_qkv_bias", "add_dense_bias", "add_output_layer_bias", "swiglu"),
    *("position_embedding_type", "rotary_base", "rotary_percent"),
    *("multi_latent_attention", "q_lora_rank", "kv_lora_rank", "qk_head_dim", "qk_pos_emb_head_dim", "v_head_dim"),
    *("enable_dsa_indexer", "index_n_heads", "index_head_dim", "index_topk"),
)
_EXPERTS = (
    *("num_experts", "moe_intermediate_size", "n_shared_experts", "moe_shared_expert_intermediate_size"),
    *("shared_expert_gate", "first_k_dense_replace", "moe_layer_freq", "router_bias"),
)
"""What `args` hold and a script must give, by the part of a model that a model must have."""


def training_flags(
    family: Family,
    options: Options,
    h: Hyperparameters,
    kept: Sequence[Layer],
    settings: Mapping[str, Any],
) -> tuple[str, ...]:
    """What the training script must be told so that it loads the checkpoint, an option and its value each.

    Args:
        family: The family whose model it is.
        options: With defaults.
        h: The sizes of the model as it was converted.
        kept: The layers that are kept.
        settings: How tokens are routed and positions scaled, as `settings_of` gives it.
    """
    args = make_args(family, h, options, kept, ())
    words: dict[str, Any] = {"--num-layers": args["num_layers"]}
    for row in rows_in(Options, MINDSPEED).values():
        if row.recorded:
            words[flag(row.recorded[0])] = args[row.recorded[0]]
    if options.expert_tensor_parallel_size == options.target_tensor_parallel_size or not h.get("num_experts"):
        words["--expert-tensor-parallel-size"] = None
    words["--mtp-num-layers"] = options.mtp_num_layers or None
    words |= _model_flags(args, h)
    words["--padded-vocab-size"] = h["padded_vocab_size"]
    words["--make-vocab-size-divisible-by"] = options.make_vocab_size_divisible_by or 1
    words["--untie-embeddings-and-output-weights"] = not h.get("tie_word_embeddings")
    words |= {flag(name): value for name, value in settings.items()}
    theirs = {each.partition(" ")[0]: each for each in family.flags(h, kept, args, MINDSPEED)}
    ours = {name: value for name, value in words.items() if value is not None and value is not False}
    return (*(_written(name, value) for name, value in ours.items() if name not in theirs), *theirs.values())


def unsaid(_settings: Mapping[str, Any], _roles: Collection[str]) -> tuple[str, ...]:
    """Nothing: settings are what the script has options for."""
    return ()


def _model_flags(args: Mapping[str, Any], h: Hyperparameters) -> dict[str, Any]:
    attention, experts = "num_attention_heads" in h, "num_experts" in h
    names = (*_EVERYWHERE, *(_ATTENTION if attention else ()), *(_EXPERTS if experts else ()))
    found = {_RENAMED.get(name, flag(name)): args.get(name) for name in names}
    if args.get("rotary_percent") == 1:
        found.pop("--rotary-percent", None)
    if not args.get("group_query_attention"):
        found.pop("--num-query-groups", None)
    if attention:
        found["--disable-bias-linear"] = not args["add_bias_linear"]
    return found


def _written(name: str, value: Any) -> str:
    return told(name, int(value) if isinstance(value, float) and value.is_integer() else value)
