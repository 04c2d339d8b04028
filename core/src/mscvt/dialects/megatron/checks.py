"""Options and models that megatron-core has no modules for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from mscvt.dialects.biases import check_biases
from mscvt.dialects.megatron.dist import in_one_piece
from mscvt.dialects.megatron.versions import (
    ACCOUNTED,
    EXPERT_WIDTHS,
    LAYOUTS,
    LEGACY_EXPERTS,
    MANY_RANKS,
    MTP,
    SINGLE_QUERY_NORM,
    VIRTUAL_STAGES,
    minor_of,
)
from mscvt.dialects.options import TORCH_DIST, VERSIONS, Options
from mscvt.errors import Faults
from mscvt.model.family import Hyperparameters
from mscvt.model.options import flag

_SINCE: Mapping[str, int] = MappingProxyType(
    {
        "num_virtual_stages_per_pipeline_rank": VIRTUAL_STAGES,
        "account_for_embedding_in_pipeline_split": ACCOUNTED,
        "account_for_loss_in_pipeline_split": ACCOUNTED,
        "pipeline_model_parallel_layout": LAYOUTS,
        "mtp_num_layers": MTP,
    }
)
"""Option -> the first version that has it."""
_NO_MODULE: Mapping[str, str] = MappingProxyType(
    {
        "norm.post_attention": "has no norm behind attention",
        "norm.post_mlp": "has no norm behind the MLP",
        "head_bias": "has no bias in the output layer",
        "indexer.q": "has no indexer whose names are known here",
    }
)
"""Role -> why no model with it can be built."""


def check(options: Options, h: Hyperparameters, parts: Collection[frozenset[str]]) -> None:
    """Refuse options that contradict one another, or a model that megatron-core has no modules for under them.

    Raises:
        MscvtError: All faults at once.
    """
    faults = Faults()
    name, version = flag("megatron_core_version"), minor_of(options.megatron_core_version)
    if version is None:
        faults.add(
            f"{name} {options.megatron_core_version}: its names are not known",
            hint=f"Those of {VERSIONS[0]} to {VERSIONS[-1]} are.",
        )
        faults.raise_if_any("options that can't be met")
        return
    roles = frozenset().union(*parts)
    for role, why in _NO_MODULE.items():
        if role in roles:
            faults.add(
                f"megatron-core {why}, and the model has {role}", hint="The dialect mindspeed may have a module."
            )
    for option, first in _SINCE.items():
        if getattr(options, option) and version < first:
            faults.add(
                f"{flag(option)}: megatron-core has it since 0.{first}, {name} is {options.megatron_core_version}",
                hint=f"Leave it out, or give {name} 0.{first} or later.",
            )
    check_biases("megatron-core", parts, faults)
    whole = in_one_piece(options)
    _check_latent(whole, h, roles, version, faults)
    _check_mixers(options, roles, faults)
    _check_experts(whole, h, roles, version, faults)
    _check_groups(whole, h, version, faults)
    if options.non_homogeneous_layers and options.ckpt_format != TORCH_DIST:
        faults.add(
            f"{flag('non_homogeneous_layers')} means nothing without {flag('ckpt_format')} {TORCH_DIST}",
            hint=f"Leave out {flag('non_homogeneous_layers')}.",
        )
    faults.raise_if_any("megatron-core can't have that")


def _check_latent(options: Options, h: Hyperparameters, roles: Collection[str], version: int, faults: Faults) -> None:
    if "mla.kv_down" not in roles:
        return
    if options.transformer_impl == "local":
        faults.add(
            f"{flag('transformer_impl')} local: megatron-core can't build latent attention from local modules, whose "
            "attention takes no size of keys of its own",
            hint=f"Give {flag('transformer_impl')} transformer_engine.",
        )
    if not h.get("q_lora_rank") and version > SINGLE_QUERY_NORM:
        faults.add(
            f"since 0.{SINGLE_QUERY_NORM + 1} megatron-core normalises a query that is not compressed once more, and "
            "the model has no weight for that",
            hint=f"Give {flag('megatron_core_version')} 0.{SINGLE_QUERY_NORM}.",
        )


def _check_mixers(options: Options, roles: Collection[str], faults: Faults) -> None:
    if not any(role.startswith("mixer.") for role in roles):
        return
    if options.ckpt_format == TORCH_DIST:
        faults.add(
            f"{flag('ckpt_format')} {TORCH_DIST}: the pieces of state space layers are tensors of their own there, "
            "which is not written",
            hint=f"Leave out {flag('ckpt_format')}.",
        )
    if options.transformer_impl == "local":
        faults.add(
            f"{flag('transformer_impl')} local: megatron-core has no state space layers of local modules",
            hint=f"Give {flag('transformer_impl')} transformer_engine.",
        )


def _check_experts(options: Options, h: Hyperparameters, roles: Collection[str], version: int, faults: Faults) -> None:
    wide, widths = h.get("ffn_hidden_size"), h.get("moe_intermediate_size")
    is_single = not options.moe_grouped_gemm and options.ckpt_format != TORCH_DIST
    if "moe.router" in roles and version < EXPERT_WIDTHS and is_single and widths != wide:
        faults.add(
            f"experts are {widths} wide and dense layers {wide}: megatron-core builds such experts one by one since "
            f"0.{EXPERT_WIDTHS}, {flag('megatron_core_version')} is {options.megatron_core_version}",
            hint=f"Give {flag('moe_grouped_gemm')}, or a later version.",
        )
    name = flag("moe_use_legacy_grouped_gemm")
    if options.moe_use_legacy_grouped_gemm and version > LEGACY_EXPERTS:
        faults.add(
            f"{name}: megatron-core has it up to 0.{LEGACY_EXPERTS}, {flag('megatron_core_version')} is "
            f"{options.megatron_core_version}",
            hint=f"Leave out {name}.",
        )
    if options.moe_use_legacy_grouped_gemm and not options.moe_grouped_gemm:
        faults.add(
            f"{name} means nothing without {flag('moe_grouped_gemm')}", hint=f"Give {flag('moe_grouped_gemm')} too."
        )


def _check_groups(options: Options, h: Hyperparameters, version: int, faults: Faults) -> None:
    """More tensor ranks than kv groups: each holds a part of a group."""
    tensor, groups = options.target_tensor_parallel_size or 1, h.get("num_query_groups")
    if not h.get("kv_channels") or not groups or tensor <= groups:
        return
    name = flag("target_tensor_parallel_size")
    if version < MANY_RANKS:
        faults.add(
            f"{name} {tensor}: more than {groups} kv groups, which megatron-core can divide since 0.{MANY_RANKS}; "
            f"{flag('megatron_core_version')} is {options.megatron_core_version}",
            hint=f"Give {name} a divisor of {groups}.",
        )
    elif tensor % groups:
        faults.add(
            f"{name} {tensor}: more than {groups} kv groups, and no multiple of them",
            hint=f"Give {name} a divisor or a multiple of {groups}.",
        )
