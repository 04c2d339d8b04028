"""The `args` that a checkpoint is written with; `mscvt.dialects.mindspeed.args_read` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mscvt.dialects.mindspeed.args_read import ABSENT, ARGUMENT_NAMES, MODEL_TYPE
from mscvt.dialects.mindspeed.options import Options
from mscvt.model.family import Hyperparameters, Layer
from mscvt.model.options import rows
from mscvt.plugins.family import Family


def make_args(
    family: Family, h: Hyperparameters, options: Options, kept: Sequence[Layer], absent: Sequence[str]
) -> dict[str, Any]:
    """Everything that the training loader and the way back want to know, as plain values.

    Args:
        family: The family whose model it is.
        h: The sizes of the model as it was converted.
        options: Validated, with defaults.
        kept: The layers that are kept.
        absent: What the source's MTP layers could have repeated and did not.
    """
    layers = sum(layer.mtp is None for layer in kept)
    roles = family.usual_roles(family.layers(h), h)
    groups = h.get("num_query_groups")
    args: dict[str, Any] = {name: list(v) if isinstance(v, (list, tuple)) else v for name, v in h.items()}
    args.pop("tie_word_embeddings", None)
    for name, names in ARGUMENT_NAMES.items():
        if name in h:
            args |= dict.fromkeys(names, h[name])
    args |= {
        MODEL_TYPE: family.model_type.name,
        "num_layers": layers + len(options.noop_layers or ()),
        "num_key_value_heads": groups,
        "group_query_attention": groups != h.get("num_attention_heads"),
        "untie_embeddings_and_output_weights": not h.get("tie_word_embeddings"),
        "add_position_embedding": True,
        "qk_layernorm": bool(roles & {"attention.q_norm", "mla.q_norm", "mla.kv_norm"}),
        "max_position_embeddings": h["seq_length"],
        "position_embedding_type": "rope",
        "normalization": "RMSNorm",
        "swiglu": True,
        "add_bias_linear": False,
    }
    if options.first_k_dense_replace is not None:
        args["first_k_dense_replace"] = options.first_k_dense_replace
    if "moe.shared.gate" not in roles:
        args.pop("n_shared_experts", None)
    if "mla.kv_down" in roles:
        args["multi_latent_attention"] = True
        args.setdefault("q_lora_rank", None)
    if "moe.router_bias" in roles:
        args["router_bias"] = True
    if not args.get("add_qkv_bias"):  # training only looks whether it is there
        args.pop("add_qkv_bias", None)
    if absent or not family.model_type.repeats_ends:
        args[ABSENT] = sorted(absent)
    args |= _option_args(options, layers)
    args |= family.args(h, kept)
    return dict(sorted(args.items()))


def _option_args(options: Options, layers: int) -> dict[str, Any]:
    """The options under the names that `args` knows them by; what does not apply is None."""
    args: dict[str, Any] = {}
    for row in rows(Options).values():
        if row.recorded:
            value = getattr(options, row.name)
            if isinstance(value, tuple):
                value = ",".join(map(str, value)) or None
            args[row.recorded[0]] = value
    virtual = options.num_layers_per_virtual_pipeline_stage
    stages = options.target_pipeline_parallel_size or 1
    if virtual:
        share = (layers + len(options.noop_layers or ())) // stages
        args["vpp_size"] = args["virtual_pipeline_model_parallel_size"] = share // virtual
    if options.make_vocab_size_divisible_by:
        args["make_vocab_size_divisible_by"] = options.make_vocab_size_divisible_by
    return args
