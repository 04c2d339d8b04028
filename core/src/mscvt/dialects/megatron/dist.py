"""The names of `torch_dist` checkpoints: global tensors, which know no parallel dimension, of one naming for all specs.

A model is described as Transformer Engine's modules have it on a single rank, with experts one by one; here its keys
become global names. Source: `sharded_state_dict` in megatron-core's transformer_block.py, moe/experts.py and
multi_token_prediction.py, versions 0.10 to 0.19.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mscvt.dialects.options import TORCH_DIST, Options
from mscvt.model.options import flag
from mscvt.tensors.slots import Slot

_LAYER = re.compile(r"(decoder\.layers\.)(\d+)\.(.+)")
_EXPERT = re.compile(r"(.*\.experts\.)local_experts\.(\d+)\.(.+)")
_NAMES = "0.16"
"""A version whose names these are in one piece; here they did not change."""
_ONE_PIECE: dict[str, Any] = {
    **dict.fromkeys(
        (
            *("target_tensor_parallel_size", "target_pipeline_parallel_size", "target_expert_parallel_size"),
            "expert_tensor_parallel_size",
        ),
        1,
    ),
    **dict.fromkeys(
        (
            *("num_layers_per_virtual_pipeline_stage", "num_virtual_stages_per_pipeline_rank"),
            *("decoder_first_pipeline_num_layers", "decoder_last_pipeline_num_layers"),
            *("account_for_embedding_in_pipeline_split", "account_for_loss_in_pipeline_split"),
            *("pipeline_model_parallel_layout", "moe_grouped_gemm", "moe_use_legacy_grouped_gemm"),
        )
    ),
    "transformer_impl": "transformer_engine",
    "megatron_core_version": _NAMES,
}
"""Options -> their values where nothing is divided."""
_ALSO = (
    ("pre_mlp_layernorm.weight", "mlp.linear_fc1.layer_norm_weight"),
    ("pre_mlp_layernorm.bias", "mlp.linear_fc1.layer_norm_bias"),
)
"""The norm of a layer with experts: what Transformer Engine's spec asks for, and the local one."""
_ONCE = (
    ("self_attention.linear_q_up_proj.layer_norm_weight", "self_attention.q_layernorm.weight"),
    ("self_attention.linear_kv_up_proj.layer_norm_weight", "self_attention.kv_layernorm.weight"),
)
"""Names of today -> those of 0.10."""
_HALVES = ("linear_fc1.weight", "linear_fc1.bias", "linear_fc1.adapter.linear_out.weight")
"""Tensors that `singleton_local_shards` divides into `_w` and `_v`."""


def in_one_piece(options: Options) -> Options:
    """The options under which a model is described whose checkpoint has this format; others stay as they are."""
    return replace(options, **_ONE_PIECE) if options.ckpt_format == TORCH_DIST else options


def in_vain(options: Options) -> str | None:
    """Say which of the options that were asked for change nothing of a checkpoint's tensors, if there are any."""
    names = _ONE_PIECE.keys() - {"megatron_core_version"}
    given = sorted(flag(name) for name in names if getattr(options, name) is not None)
    if options.ckpt_format != TORCH_DIST or not given:
        return None
    return f"{', '.join(given)}: decide args, flags and padding alone, a {TORCH_DIST} checkpoint loads at any sizes"


def is_uniform(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether all decoder layers have the same tensors, so that each kind of them is one tensor."""
    layers: dict[int, dict[str, tuple[int, ...]]] = {}
    for key, shape in shapes.items():
        if match := _LAYER.fullmatch(key):
            layers.setdefault(int(match[2]), {})[match[3]] = shape
    kinds = list(layers.values())
    return all(kind == kinds[0] for kind in kinds)


def slots(options: Options, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, Slot]:
    """Where each tensor of a model lies.

    Args:
        options: With defaults.
        shapes: Key -> shape of every tensor.
    """
    counts = _counts(shapes)
    is_stacked = is_uniform(shapes) and not options.non_homogeneous_layers
    found = {key: _slot(key, counts, is_stacked=is_stacked) for key in shapes}
    return {key: replace(slot, others=tuple(_renamed(slot.name, _ALSO))) for key, slot in found.items()}


def content(slots: Mapping[str, Slot]) -> Mapping[str, bool]:
    """What `content_metadata` says of these places."""
    said = {"singleton_local_shards": False, "chained_optim_avoid_prefix": True}
    is_single = any(_LAYER.fullmatch(slot.name) for slot in slots.values())
    return {**said, "non_homogeneous_layers": True} if is_single else said


def objects(slots: Mapping[str, Slot], states: Sequence[str]) -> Iterator[str]:
    """The names of the objects that loaders expect besides weights.

    Args:
        slots: Where each tensor lies.
        states: Their keys in one piece.
    """
    counts = _counts(slots)
    is_stacked = not content(slots).get("non_homogeneous_layers", False)
    for state in states:
        slot = _slot(state, counts, is_stacked=is_stacked)
        index, sizes = (".".join(map(str, numbers)) for numbers in (slot.index or (0,), slot.counts or (1,)))
        yield f"{slot.name}/shard_{index}_{sizes}"


def readings(keys: Collection[str], factors: Collection[str] = ()) -> Mapping[str, tuple[tuple[Slot, ...], ...]]:
    """The ways in which checkpoints have tensors: each is what lies one behind the other, the first way that is there.

    Args:
        keys: The key of every tensor.
        factors: Keys of factors of LoRA, which experts may have in common.
    """
    counts = _counts(keys)
    found = {key: tuple(_ways(key, counts)) for key in keys}
    return {**found, **{key: tuple(_ways_of_factor(key, counts)) for key in factors}}


def _ways_of_factor(key: str, counts: Mapping[str, int]) -> Iterator[tuple[Slot, ...]]:
    """The ways of a matrix, and those of one that all experts of a layer have."""
    for way in _ways(key, counts):
        yield tuple(replace(slot, dimensions=2) for slot in way)
        if _EXPERT.fullmatch(key) and way[0].counts:
            yield tuple(replace(slot, index=slot.index[:-1], counts=slot.counts[:-1], dimensions=2) for slot in way)


def _ways(key: str, counts: Mapping[str, int]) -> Iterator[tuple[Slot, ...]]:
    for is_stacked in (True, False):
        slot = _slot(key, counts, is_stacked=is_stacked)
        yield (slot,)
        for name in (*_renamed(slot.name, _ALSO), *_renamed(slot.name, _ONCE)):
            yield (replace(slot, name=name),)
    match = _EXPERT.fullmatch(key)
    single = f"{match[1]}experts.{match[2]}.{match[3]}" if match else key
    yield (Slot(single),)
    if single.endswith(_HALVES):
        yield Slot(f"{single}_w"), Slot(f"{single}_v")


def _counts(keys: Collection[str]) -> Mapping[str, int]:
    """Prefix -> how many layers or experts have keys that begin with it."""
    counts: dict[str, int] = {}
    for key in keys:
        for pattern in (_LAYER, _EXPERT):
            if match := pattern.fullmatch(key):
                counts[match[1]] = max(counts.get(match[1], 0), int(match[2]) + 1)
    return counts


def _slot(key: str, counts: Mapping[str, int], *, is_stacked: bool) -> Slot:
    """Where a tensor lies."""
    name = key
    index: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    if match := _EXPERT.fullmatch(name):
        name, index, sizes = f"{match[1]}experts.{match[3]}", (int(match[2]),), (counts[match[1]],)
    if is_stacked and (match := _LAYER.fullmatch(name)):
        name, index, sizes = f"{match[1]}{match[3]}", (int(match[2]), *index), (counts[match[1]], *sizes)
    return Slot(name, index, sizes)


def _renamed(name: str, table: Sequence[tuple[str, str]]) -> Iterator[str]:
    for ours, theirs in table:
        if name.endswith(f".{ours}"):
            yield name.removesuffix(ours) + theirs
