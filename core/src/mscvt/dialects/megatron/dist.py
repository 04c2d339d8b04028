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

_LAYERS = "decoder.layers."
_KEY = re.compile(r"(?:decoder\.layers\.(\d+)\.)?((?:(.*\.experts\.)local_experts\.(\d+)\.)?(.+))")
"""The numbers in a key: of its layer, what follows, and in that how its experts' names begin, its number, the rest."""
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
_ALL_RENAMED = tuple(f".{ours}" for ours, _ in (*_ALSO, *_ONCE))
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


def slots(options: Options, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, Slot]:
    """Where each tensor of a model lies.

    Args:
        options: With defaults.
        shapes: Key -> shape of every tensor.
    """
    numbering = _Numbering(shapes)
    is_stacked = not options.non_homogeneous_layers and numbering.is_uniform(shapes)
    found = {key: numbering.slot(key, is_stacked=is_stacked) for key in shapes}
    also = {key: slot._replace(others=others) for key, slot in found.items() if (others := _renamed(slot.name, _ALSO))}
    return {**found, **also}


def content(slots: Mapping[str, Slot]) -> Mapping[str, bool]:
    """What `content_metadata` says of these places."""
    said = {"singleton_local_shards": False, "chained_optim_avoid_prefix": True}
    is_single = any(_numbers(name)[0] for name in {slot.name for slot in slots.values()})
    return {**said, "non_homogeneous_layers": True} if is_single else said


def objects(slots: Mapping[str, Slot], states: Sequence[str]) -> Iterator[str]:
    """The names of the objects that loaders expect besides weights.

    Args:
        slots: Where each tensor lies.
        states: Their keys in one piece.
    """
    numbering = _Numbering(slots)
    is_stacked = not content(slots).get("non_homogeneous_layers", False)
    for state in states:
        slot = numbering.slot(state, is_stacked=is_stacked)
        index, sizes = ".".join(map(str, slot.indices or (0,))), ".".join(map(str, slot.counts or (1,)))
        yield f"{slot.name}/shard_{index}_{sizes}"


def readings(
    keys: Collection[str], there: Collection[str], factors: Collection[str] = ()
) -> Mapping[str, Sequence[tuple[Slot, ...]]]:
    """The ways in which a checkpoint has tensors: each is what lies one behind the other, the usual ones first.

    Args:
        keys: The key of every tensor.
        there: The names of its global tensors.
        factors: Keys of factors of LoRA, which experts may have in common.
    """
    numbering = _Numbering(keys)
    found = {key: numbering.ways(key, there) for key in keys}
    return {**found, **{key: [*_ways_of_factor(key, numbering, there)] for key in factors}}


def _ways_of_factor(key: str, numbering: _Numbering, there: Collection[str]) -> Iterator[tuple[Slot, ...]]:
    """The ways of a matrix, and those of one that all experts of a layer have."""
    is_of_expert = bool(_numbers(key)[3])
    for way in numbering.ways(key, there):
        yield tuple(slot._replace(dimensions=2) for slot in way)
        if is_of_expert and way[0].counts:
            yield tuple(slot._replace(indices=slot.indices[:-1], counts=slot.counts[:-1], dimensions=2) for slot in way)


def _numbers(key: str) -> tuple[str, str, str, str, str]:
    """What `_KEY` finds in a key, with nothing for what it does not have."""
    found: tuple[str, str, str, str, str] = _KEY.findall(key)[0]
    return found


class _Numbering:
    """How many layers and experts a model has, and where its tensors lie by their numbers."""

    def __init__(self, keys: Collection[str]) -> None:
        """Count what the keys of all tensors name."""
        self._layers = 0
        self._experts: dict[tuple[str, str], int] = {}
        self._numbers = {key: _numbers(key) for key in keys}
        for layer, _, experts, expert, _ in self._numbers.values():
            if layer:
                self._layers = max(self._layers, int(layer) + 1)
            if experts:
                self._experts[layer, experts] = max(self._experts.get((layer, experts), 0), int(expert) + 1)

    def is_uniform(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether all decoder layers have the same tensors, so that each kind of them is one tensor."""
        layers: dict[str, dict[str, tuple[int, ...]]] = {}
        for key, (layer, inside, *_) in self._numbers.items():
            if layer:
                layers.setdefault(layer, {})[inside] = shapes[key]
        kinds = list(layers.values())
        return all(kind == kinds[0] for kind in kinds)

    def slot(self, key: str, *, is_stacked: bool) -> Slot:
        """Where a tensor lies."""
        layer, inside, experts, expert, rest = self._numbers.get(key) or _numbers(key)
        name = f"{experts}experts.{rest}" if experts else inside
        if layer:
            name = f"{_LAYERS}{name}" if is_stacked else f"{_LAYERS}{layer}.{name}"
        return self._slot(name, layer if is_stacked else "", (layer, experts), expert)

    def ways(self, key: str, there: Collection[str]) -> list[tuple[Slot, ...]]:
        """The ways in which a checkpoint with global tensors of these names has a tensor."""
        layer, inside, experts, expert, rest = self._numbers.get(key) or _numbers(key)
        front = f"{_LAYERS}{layer}." if layer else ""
        name = f"{experts}experts.{rest}" if experts else inside
        names = [(f"{_LAYERS}{name}", layer), (f"{front}{name}", "")] if layer else [(name, "")]
        if key.endswith(_ALL_RENAMED):
            names = [(way, at) for name, at in names for way in (name, *_renamed(name, (*_ALSO, *_ONCE)))]
        ways: list[tuple[Slot, ...]] = [
            (self._slot(name, at, (layer, experts), expert),) for name, at in names if name in there
        ]
        single = key
        if experts and (single := f"{front}{experts}experts.{expert}.{rest}") in there:
            ways.append((Slot(single),))
        if key.endswith(_HALVES) and f"{single}_w" in there and f"{single}_v" in there:
            ways.append((Slot(f"{single}_w"), Slot(f"{single}_v")))
        return ways

    def _slot(self, name: str, layer: str, experts: tuple[str, str], expert: str) -> Slot:
        if not expert:
            return Slot(name, (int(layer),), (self._layers,)) if layer else Slot(name)
        count = self._experts[experts]
        if not layer:
            return Slot(name, (int(expert),), (count,))
        return Slot(name, (int(layer), int(expert)), (self._layers, count))


def _renamed(name: str, table: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    if not name.endswith(_ALL_RENAMED):
        return ()
    return tuple(name.removesuffix(ours) + theirs for ours, theirs in table if name.endswith(f".{ours}"))
