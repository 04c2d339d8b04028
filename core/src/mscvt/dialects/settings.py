"""What a configuration says and no tensor shows: how tokens are routed, how rotary embeddings are scaled.

Names are those of MindSpeed-LLM's arguments, as its `mindspeed_llm/features_manager` and its example scripts have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mscvt.errors import shown
from mscvt.model.hyperparameters import lookup

_ROUTER: Mapping[str, tuple[tuple[str, ...], Any]] = MappingProxyType(
    {
        "moe_router_topk": (("num_experts_per_tok", "moe_topk"), None),
        "moe_router_num_groups": (("n_group",), 1),
        "moe_router_group_topk": (("topk_group",), 1),
        "moe_router_topk_scaling_factor": (("routed_scaling_factor", "router_scaling_factor"), 1),
        "moe_router_score_function": (("scoring_func", "score_function"), "softmax"),
        "norm_topk_prob": (("norm_topk_prob", "route_norm"), False),
    }
)
"""Argument -> where a configuration says it, and the value that training has anyway."""
_TYPE = "rope_scaling_type"
_SCALING: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "llama3": {
            "rope_scaling_factor": "factor",
            "low_freq_factor": "low_freq_factor",
            "high_freq_factor": "high_freq_factor",
            "original_max_position_embeddings": "original_max_position_embeddings",
        },
        "yarn": {
            "rope_scaling_factor": "factor",
            "beta_fast": "beta_fast",
            "beta_slow": "beta_slow",
            "rope_scaling_mscale": "mscale",
            "rope_scaling_mscale_all_dim": "mscale_all_dim",
            "rope_scaling_original_max_position_embeddings": "original_max_position_embeddings",
        },
    }
)
"""Kind of scaling -> argument -> what a configuration calls it."""
_FAMILYS = frozenset({None, "default", "longrope"})
"""No scaling, and that whose numbers are the family's business."""


def settings_of(config: Mapping[str, Any], *, has_experts: bool) -> dict[str, Any]:
    """What a `config.json` says: argument -> value, without those that training has anyway.

    Args:
        config: The configuration.
        has_experts: Whether there is anything to route.
    """
    found: dict[str, Any] = {}
    kind, numbers = _scaling(config)
    if kind in _SCALING:
        found[_TYPE] = kind
        found |= {name: numbers[path] for name, path in _SCALING[kind].items()}
    if has_experts:
        found |= {name: lookup(config, paths) for name, (paths, _) in _ROUTER.items()}
    return _worth_saying(found)


def recorded_settings(args: Mapping[str, Any], *, has_experts: bool) -> dict[str, Any]:
    """The same from what a checkpoint recorded."""
    kind = args.get(_TYPE)
    names = [_TYPE, *_SCALING[kind]] if isinstance(kind, str) and kind in _SCALING else []
    names += _ROUTER if has_experts else ()
    return _worth_saying({name: args.get(name) for name in names})


def unsaid(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What training has no option for that is known here, one line each."""
    kind, _ = _scaling(config)
    if kind in _SCALING or kind in _FAMILYS:
        return ()
    return (f"config.json scales rotary embeddings ({shown(kind)}), for which no option of training is known",)


def _worth_saying(found: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values other than those that hold anyway; a file may hold anything."""
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, (bool, int, float, str)) and (name not in _ROUTER or value != _ROUTER[name][1])
    }


def _scaling(config: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """The kind, and its numbers with None for those that are not said; `rope_parameters` since transformers 5."""
    said = lookup(config, ("rope_scaling", "rope_parameters"))
    if not isinstance(said, Mapping):
        return None, {}
    kind = said.get("rope_type") or said.get("type")
    if not isinstance(kind, str):
        return (None if kind is None else repr(kind)), {}
    original = "original_max_position_embeddings"
    numbers = {path: said.get(path) for path in _SCALING.get(kind, {}).values()}
    if numbers.get(original) is None:
        numbers[original] = config.get(original)
    return kind, numbers
