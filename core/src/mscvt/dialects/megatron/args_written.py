"""The `args` that a checkpoint is written with, as Megatron-LM's own training records them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mscvt.dialects.args_meaning import said_by_roles
from mscvt.dialects.args_read import DIALECT, VERSION
from mscvt.dialects.args_written import model_args, option_args
from mscvt.dialects.megatron.pipeline import virtual_stages
from mscvt.dialects.options import MEGATRON, Options
from mscvt.dialects.sizes import sizes
from mscvt.model.family import Hyperparameters, Layer
from mscvt.plugins.family import Family

OF_FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "add_bias_linear": "add_bias_linear",
        "add_qkv_bias": "add_qkv_bias",
        "squared_relu": "squared_relu",
        "quick_geglu": "quick_geglu",
        "swiglu": "swiglu",
        "normalization": "normalization",
        "position_embedding_type": "position_embedding_type",
        "rotary_interleaved": "rotary_interleaved",
        "no_rope_freq": "no_rope_freq",
        "moe_router_enable_expert_bias": "moe_router_enable_expert_bias",
        "moe_shared_expert_intermediate_size": "moe_shared_expert_intermediate_size",
        "shared_expert_gate": "moe_shared_expert_gate",
        "add_rmsnorm_offset": "apply_layernorm_1p",
    }
)
"""What families say for the usual dialect -> what Megatron-LM calls it."""


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
    args = model_args(family, h, kept, absent)
    if options.first_k_dense_replace is not None:
        args["first_k_dense_replace"] = options.first_k_dense_replace
    args |= option_args(options)
    args |= settings(family, h, kept)
    args["mtp_num_layers"] = options.mtp_num_layers or None
    stages = virtual_stages(options, args["num_layers"])
    args["virtual_pipeline_model_parallel_size"] = stages if stages > 1 else None
    args |= {DIALECT: MEGATRON, VERSION: options.megatron_core_version}
    return dict(sorted(args.items()))


def settings(family: Family, h: Hyperparameters, kept: Sequence[Layer]) -> dict[str, Any]:
    """What Megatron-LM wants to know of a model besides its sizes."""
    roles = family.roles(kept, h)
    said = said_by_roles(family, h, kept) | dict(family.args(h, kept))
    found = {ours: said[theirs] for theirs, ours in OF_FAMILIES.items() if theirs in said}
    if any(role.startswith("mixer.") for role in roles):
        found["hybrid_override_pattern"] = "M" * sum(layer.mtp is None for layer in kept)
    if h.get("num_experts"):
        pattern = [int("moe.router" in family.roles((layer,), h)) for layer in kept if layer.mtp is None]
        found["moe_layer_freq"] = 1 if all(pattern) else pattern
    if "moe.router_bias" in roles:
        found["moe_router_enable_expert_bias"] = True
    if "moe.shared.down" in roles:
        found.setdefault("moe_shared_expert_intermediate_size", sizes(h)["shared_ffn"])
    if h.get("rotary_percent"):
        found["rotary_percent"] = h["rotary_percent"]
    return found
