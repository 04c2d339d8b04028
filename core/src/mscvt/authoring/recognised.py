"""Which roles a checkpoint's tensors play, in blocks, as far as their names tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field

from mscvt.authoring.endings import role_in_layer, role_of_end
from mscvt.records import dataclass
from mscvt.tensors.info import TensorInfo

_IN_LAYER = re.compile(r"((?:[A-Za-z_]\w*\.)+)(\d+)\.(.+)")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True, slots=True)
class Recognised:
    """Names by role, and what the layers have."""

    blocks: Mapping[str, Mapping[str, str]]
    """Block -> role -> name with `{layer}` and `{expert}`."""
    shapes: Mapping[str, tuple[int, ...]]
    """Role -> the shape of the first tensor that plays it."""
    experts: int
    """How many there are; 0 where there are none."""
    dense: tuple[int, ...]
    """Decoder layers with a plain MLP, in a model that has experts in others."""
    mtp: int
    """How many MTP layers there are."""


@dataclass(slots=True)
class _Found:
    name: str
    shape: tuple[int, ...]
    layers: set[int] = field(default_factory=set)
    experts: int = 0


def recognise(tensors: Mapping[str, TensorInfo], layers: int) -> Recognised:
    """Recognise the roles of a checkpoint.

    Args:
        tensors: Every tensor.
        layers: How many decoder layers there are; those that follow are MTP layers.
    """
    prefix = _layer_prefix(tensors, layers)
    suffixes: dict[str, _Found] = {}
    blocks: dict[str, dict[str, str]] = {"model": {}}
    shapes: dict[str, tuple[int, ...]] = {}
    words = prefix.split(".")
    bases = {".".join(words[:length]) for length in range(len(words) - 1)}
    for name, info in tensors.items():
        match = _IN_LAYER.fullmatch(name)
        if match and match[1] == prefix:
            numbers = _NUMBER.findall(f".{match[3]}")
            suffix = _NUMBER.sub("{expert}", f".{match[3]}", count=1)[1:]
            found = suffixes.setdefault(suffix, _Found(f"{prefix}{{layer}}.{suffix}", info.shape))
            found.layers.add(int(match[2]))
            found.experts = max(found.experts, int(numbers[0]) + 1 if numbers else 0)
        elif not match and name.rpartition(".")[0].rpartition(".")[0] in bases:
            role = role_of_end(name)
            if role is not None and blocks["model"].setdefault(role, name) == name:
                shapes[role] = info.shape
    played = {
        role: found for suffix, found in sorted(suffixes.items()) if (role := role_in_layer(suffix, suffixes.keys()))
    }
    for role, found in played.items():
        blocks.setdefault(_block_of(role), {}).setdefault(role, found.name)
        shapes.setdefault(role, found.shape)
    with_experts = {layer for role, found in played.items() if role.startswith("moe.") for layer in found.layers}
    dense = tuple(sorted(set(range(layers)) - with_experts)) if with_experts else ()
    every = {layer for found in played.values() for layer in found.layers if layer >= layers}
    experts = max((found.experts for role, found in played.items() if role.startswith("moe.expert.")), default=0)
    if with_experts and not experts and "moe.expert.down" in shapes:
        experts = shapes["moe.expert.down"][0]
    return Recognised(blocks, shapes, experts, dense, len(every) if "mtp" in blocks else 0)


def _layer_prefix(tensors: Mapping[str, TensorInfo], layers: int) -> str:
    """What stands before the number of a decoder layer: what has that many of them, and most tensors."""
    numbers: dict[str, set[int]] = {}
    counts: dict[str, int] = {}
    for name in tensors:
        if match := _IN_LAYER.fullmatch(name):
            numbers.setdefault(match[1], set()).add(int(match[2]))
            counts[match[1]] = counts.get(match[1], 0) + 1
    wanted = set(range(layers))
    return max(counts, key=lambda prefix: (wanted <= numbers[prefix], counts[prefix]), default="model.layers.")


def _block_of(role: str) -> str:
    first = role.partition(".")[0]
    return {"norm": "attention", "mla": "attention", "embedding": "mtp", "head": "mtp"}.get(first, first)
