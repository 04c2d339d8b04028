"""The dialects, and telling from a checkpoint which of them it speaks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from mscvt.dialects.args_read import DIALECT, VERSION
from mscvt.dialects.dialect import Dialect
from mscvt.dialects.options import MEGATRON, MINDSPEED, Options
from mscvt.model.options import rows


def _mindspeed() -> Dialect:
    from mscvt.dialects import mindspeed

    return mindspeed


def _megatron() -> Dialect:
    from mscvt.dialects import megatron

    return megatron


_DIALECTS: Mapping[str, Callable[[], Dialect]] = MappingProxyType({MINDSPEED: _mindspeed, MEGATRON: _megatron})
"""Value of `--dialect` -> what imports the dialect."""


def dialect_named(name: str) -> Dialect:
    """The dialect that is a value of `--dialect`."""
    return _DIALECTS[name]()


def dialect_of(options: Options) -> Dialect:
    """The dialect that was asked for, or the usual one."""
    return dialect_named(options.dialect or MINDSPEED)


class Recognised(NamedTuple):
    """What a checkpoint turned out to be."""

    dialect: str
    version: str | None
    """The version of megatron-core, where its names depend on it."""
    why: str
    """What told, after `because`; empty where nothing did and it is taken for the usual dialect."""


_KEYS: tuple[tuple[str, str], ...] = (
    (MINDSPEED, r".*(?:\.base_layer\.|\.lora_[ABab]\.|_lora_[ab]$).*"),
    (MEGATRON, r".*\.adapter\.(?:adapter_\w+\.)?linear_(?:in|out)\.weight"),
    (MEGATRON, r".*\.self_attention\.linear_(?:kv_down|q_down|q)_proj\.weight"),
    (MEGATRON, r"mtp\.layers\.\d+\.(?:final_layernorm|mtp_model_layer\..*)\.weight"),
    (MINDSPEED, r"mtp\.final_layernorms\..*|final_layernorm\.weight"),
    (MINDSPEED, r".*\.self_attention\.(?:kv_layernorm|linear_qk_nope|linear_v)\.weight"),
    (MINDSPEED, r".*\.post_(?:attn_norm|mlp_layernorm)\.weight"),
)
"""Tensors that only one dialect has; the first that is there tells."""
_OF_TRAINING = frozenset({"transformer_impl", "use_distributed_optimizer", "consumed_train_samples"})
"""Arguments that Megatron's own training always records."""


def recognise(args: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]) -> Recognised:
    """Tell the dialect of a checkpoint, and the version where that matters.

    Args:
        args: What it recorded.
        tensors: Key -> shape of some tensors, such as those of its first and its last rank.
    """
    dialect, why = _evidence(args, tensors)
    version = None
    if dialect == MEGATRON:
        from mscvt.dialects.megatron.versions import minor_of, version_of

        recorded = args.get(VERSION)
        is_known = isinstance(recorded, str) and minor_of(recorded) is not None
        version = recorded if is_known else version_of(args, tensors)
    return Recognised(dialect, version, why)


def _evidence(args: Mapping[str, Any], tensors: Iterable[str]) -> tuple[str, str]:
    recorded = args.get(DIALECT)
    if isinstance(recorded, str) and recorded in _DIALECTS:
        return recorded, f"its args record {DIALECT} = {recorded!r}"
    keys = sorted(tensors)
    for dialect, pattern in _KEYS:
        if found := next(filter(re.compile(pattern).fullmatch, keys), None):
            return dialect, f"it has {found}"
    for row in rows(Options).values():
        if row.dialects == (MINDSPEED,) and (names := [name for name in row.recorded if name in args]):
            return MINDSPEED, f"its args record {names[0]}"
    if args.keys() >= _OF_TRAINING:
        return MEGATRON, f"its args are Megatron's and record no option of {MINDSPEED} alone"
    return MINDSPEED, ""
