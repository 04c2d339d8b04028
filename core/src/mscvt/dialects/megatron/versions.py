"""Versions of megatron-core, and what each was the first or the last to have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mscvt.dialects.options import VERSIONS, Options

_VERSION = re.compile(r"0\.([0-9]{1,3})(?:\.[0-9]{1,3})*")
_MINORS = tuple(int(version.partition(".")[2]) for version in VERSIONS)

MTP, VIRTUAL_STAGES, ACCOUNTED, EXPERT_WIDTHS, LAYOUTS, WHOLE_COMPRESSIONS, MANY_RANKS = 12, 12, 12, 12, 13, 14, 16
"""The first versions (0.x) with MTP layers, with `--num-virtual-stages-per-pipeline-rank`, with `--account-for-...`,
with single experts of another width than dense layers, with `--pipeline-model-parallel-layout`, with latent
attention's compressions whole on every tensor rank, and with more tensor ranks than kv groups."""
SEPARATE_LATENT_NORMS, LEGACY_EXPERTS, NAMED_TRANSFORMER_LAYER, SINGLE_QUERY_NORM, CONVOLUTION_MODULES = (
    10,
    16,
    16,
    18,
    18,
)
"""The last versions whose latent attention has norms in modules of their own, that have GroupedMLP, that call the
decoder layer in an MTP layer `transformer_layer`, that leave a query alone which is not compressed, and whose state
space layers have a module for the convolution."""


def minor_of(version: str | None) -> int | None:
    """The x of 0.x, where that is a version whose names are known."""
    match = _VERSION.fullmatch(version or VERSIONS[-1])
    return int(match[1]) if match and int(match[1]) in _MINORS else None


def minor(options: Options) -> int:
    """The x of 0.x, of options that were checked."""
    return minor_of(options.megatron_core_version) or _MINORS[-1]


def version_of(args: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]) -> str:
    """The newest version whose names and shapes some tensors of a checkpoint have."""
    newest = _MINORS[-1]
    for key, shape in tensors.items():
        if key.startswith("mtp.layers.") and ".transformer_layer." in key:
            newest = min(newest, NAMED_TRANSFORMER_LAYER)
        elif key.endswith(".mlp.experts.weight1"):
            newest = min(newest, LEGACY_EXPERTS)
        elif key.endswith(".self_attention.kv_layernorm.weight"):
            newest = min(newest, SEPARATE_LATENT_NORMS)
        elif key.endswith(".mixer.conv1d.weight"):
            newest = min(newest, CONVOLUTION_MODULES)
        elif key.endswith(".self_attention.linear_kv_down_proj.weight"):
            rank, rope = args.get("kv_lora_rank"), args.get("qk_pos_emb_head_dim")
            if isinstance(rank, int) and isinstance(rope, int) and shape[:1] != (rank + rope,):
                newest = min(newest, WHOLE_COMPRESSIONS - 1)
        elif key.endswith(".self_attention.linear_q_proj.weight"):
            newest = min(newest, SINGLE_QUERY_NORM)
    return f"0.{newest}"
