"""The `args` that a checkpoint is written with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mscvt.dialects.args_experts import shared_experts
from mscvt.dialects.args_written import model_args, option_args
from mscvt.dialects.options import Options
from mscvt.model.family import Hyperparameters, Layer
from mscvt.model.hyperparameters import model_fields
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
    roles = family.usual_roles(family.layers(h), h)
    args = model_args(family, h, kept, absent)
    slots = args["num_layers"] + len(options.noop_layers or ())
    args |= {"num_layers": slots, "num_key_value_heads": h.get("num_query_groups")}
    if options.first_k_dense_replace is not None:
        args["first_k_dense_replace"] = options.first_k_dense_replace
    if "moe.shared.gate" in roles:
        shared_experts(args)
    else:
        args.pop("n_shared_experts", None)
    if "moe.router_bias" in roles:
        args["router_bias"] = True
    biased = model_fields(family.model_type).get("add_qkv_bias")
    if not args.get("add_qkv_bias") and not (biased and biased.default):  # training only looks whether it is there
        args.pop("add_qkv_bias", None)
    args |= option_args(options)
    if virtual := options.num_layers_per_virtual_pipeline_stage:
        chunks = slots // (options.target_pipeline_parallel_size or 1) // virtual
        args["vpp_size"] = args["virtual_pipeline_model_parallel_size"] = chunks
    args |= family.args(h, kept)
    return dict(sorted(args.items()))
