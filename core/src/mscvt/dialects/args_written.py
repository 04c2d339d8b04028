"""What `args` hold in every dialect; `mscvt.dialects.args_read` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mscvt.dialects.args_meaning import said_by_roles
from mscvt.dialects.args_read import ABSENT, ARGUMENT_NAMES, MODEL_TYPE
from mscvt.dialects.options import MINDSPEED, Options
from mscvt.model.family import Hyperparameters, Layer
from mscvt.model.hyperparameters import of_kept_layers
from mscvt.model.options import rows_in
from mscvt.plugins.family import Family


def model_args(family: Family, h: Hyperparameters, kept: Sequence[Layer], absent: Sequence[str]) -> dict[str, Any]:
    """The model's sizes, and what is usual for a decoder, under all names that loaders know them by."""
    roles = family.usual_roles(family.layers(h), h)
    args: dict[str, Any] = {name: list(v) if isinstance(v, (list, tuple)) else v for name, v in h.items()}
    args |= of_kept_layers(h, family.model_type, kept)
    args.pop("tie_word_embeddings", None)
    for name, names in ARGUMENT_NAMES.items():
        if name in h:
            args |= dict.fromkeys(names, h[name])
    args |= {
        MODEL_TYPE: family.model_type.name,
        "num_layers": sum(layer.mtp is None for layer in kept),
        "group_query_attention": h.get("num_query_groups") != h.get("num_attention_heads"),
        "untie_embeddings_and_output_weights": not h.get("tie_word_embeddings"),
        "add_position_embedding": True,
        "qk_layernorm": bool(roles & {"attention.q_norm", "mla.q_norm", "mla.kv_norm"}),
        "max_position_embeddings": h["seq_length"],
        "position_embedding_type": "rope",
        "normalization": "RMSNorm",
        "swiglu": True,
        "add_bias_linear": False,
    }
    args |= said_by_roles(family, h, kept)
    if "mla.kv_down" in roles:
        args["multi_latent_attention"] = True
        args.setdefault("q_lora_rank", None)
    if absent or not family.model_type.repeats_ends:
        args[ABSENT] = sorted(absent)
    return args


def option_args(options: Options) -> dict[str, Any]:
    """The options under the names that `args` knows them by; what does not apply is None."""
    args: dict[str, Any] = {}
    for row in rows_in(Options, options.dialect or MINDSPEED).values():
        if row.recorded:
            value = getattr(options, row.name)
            if isinstance(value, tuple):
                value = ",".join(map(str, value)) or None
            args[row.recorded[0]] = value
    if options.make_vocab_size_divisible_by:
        args["make_vocab_size_divisible_by"] = options.make_vocab_size_divisible_by
    return args
