"""What a configuration says and no tensor shows: how tokens are routed, how rotary embeddings are scaled.

Names are those of MindSpeed-LLM's arguments, as its `mindspeed_llm/features_manager` and its example scripts have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mscvt.errors import shown
from mscvt.model.fields import is_whole
from mscvt.model.hyperparameters import lookup

_TOPK, _GROUPS, _CHOSEN = "moe_router_topk", "moe_router_num_groups", "moe_router_group_topk"
_SCORES, _IS_FIRST, _NORMALISED = "moe_router_score_function", "moe_router_pre_softmax", "norm_topk_prob"
_ROUTER: Mapping[str, tuple[tuple[str, ...], Any]] = MappingProxyType(
    {
        _TOPK: (("num_experts_per_tok", "moe_topk"), None),
        _GROUPS: (("n_group",), None),
        _CHOSEN: (("topk_group",), None),
        "moe_router_topk_scaling_factor": (("routed_scaling_factor", "router_scaling_factor"), 1),
        _SCORES: (("scoring_func", "score_function"), None),
        _IS_FIRST: ((), False),
        _NORMALISED: (("norm_topk_prob", "route_norm"), False),
    }
)
"""Argument -> where a configuration says it, and the value that training has anyway."""
_BEST_OF_GROUP, _USUAL_BEST = {"group_limited_greedy": 1}, 2
"""`topk_method` -> by how many of its best scores a group of experts is chosen, where that is not the usual."""
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
CONFIG_FIELDS = frozenset({"rope_scaling", "rope_parameters", "topk_method"}).union(
    *(paths for paths, _ in _ROUTER.values())
)
"""The fields of `config.json` that are read here, whatever the family."""
_NONE, _FAMILYS = frozenset({None, "default"}), frozenset({"longrope"})
"""No scaling, and that whose numbers are the business of the family, which speaks of the usual dialect."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def settings_of(
    config: Mapping[str, Any], said: Mapping[str, Any] = _NOTHING, *, has_experts: bool, is_biased: bool = False
) -> dict[str, Any]:
    """What a `config.json` says: argument -> value, without those that training has anyway.

    Args:
        config: The configuration, as the family spells it.
        said: What the family says in the place of it, by arguments.
        has_experts: Whether there is anything to route.
        is_biased: Whether experts are chosen by their scores and a bias.
    """
    found: dict[str, Any] = {}
    kind, numbers = _scaling(config)
    if kind in _SCALING:
        found[_TYPE] = kind
        found |= {name: numbers[path] for name, path in _SCALING[kind].items()}
    if has_experts:
        found |= _routing(_said_of_routing(config, said), is_biased=is_biased)
    return _worth_saying(found)


def recorded_settings(args: Mapping[str, Any], *, has_experts: bool, is_biased: bool = False) -> dict[str, Any]:
    """The same from what a checkpoint recorded."""
    kind = args.get(_TYPE)
    names = [_TYPE, *_SCALING[kind]] if isinstance(kind, str) and kind in _SCALING else []
    found = {name: args.get(name) for name in names}
    if has_experts:
        found |= _routing({name: args.get(name) for name in _ROUTER}, is_biased=is_biased)
    return _worth_saying(found)


def unsaid(
    config: Mapping[str, Any],
    said: Mapping[str, Any] = _NOTHING,
    *,
    has_experts: bool,
    is_biased: bool = False,
    is_usual: bool = True,
) -> tuple[str, ...]:
    """What training has no option for that is known here, one line each; `settings_of` has the rest."""
    notes = []
    kind, _ = _scaling(config)
    if kind not in {*_SCALING, *_NONE, *(_FAMILYS if is_usual else ())}:
        notes.append(f"config.json scales rotary embeddings ({shown(kind)}), for which no option of training is known")
    if not has_experts:
        return tuple(notes)
    found = _said_of_routing(config, said)
    routed = _routing(found, is_biased=is_biased)
    topk, chosen = routed[_TOPK], routed[_CHOSEN]
    if routed[_SCORES] == "sigmoid" and found[_NORMALISED] is False and topk != 1:
        notes.append(
            "config.json leaves the weights of chosen experts as they are (norm_topk_prob is false), and training "
            "makes those of sigmoid scores sum to one"
        )
    best = _BEST_OF_GROUP.get(str(config.get("topk_method")), _USUAL_BEST)
    if chosen is not None and is_whole(topk) and topk // chosen != best:
        notes.append(
            f"config.json's model chooses groups of experts by the best {best} of each, and megatron-core by the best "
            f"{topk // chosen} (num_experts_per_tok / topk_group)"
        )
    return tuple(notes)


def _said_of_routing(config: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Argument -> what the family or else a configuration says, None where nothing."""
    found = {name: said.get(name, lookup(config, paths)) for name, (paths, _) in _ROUTER.items()}
    if config.get("topk_method") == "greedy":
        found[_GROUPS] = None
    return found


def _routing(said: Mapping[str, Any], *, is_biased: bool) -> dict[str, Any]:
    """What is said of routing, in the terms of megatron-core (`topk_routing_with_score_function` of its `moe_utils`).

    It chooses among groups where not all of them are to be chosen. It adds a bias to sigmoids, so that scores with one
    are sigmoids where nothing else is said. It takes the softmax of the chosen scores, whose sum is one, or chooses
    among the softmax of all.
    """
    groups, chosen, scores, is_first = (said[name] for name in (_GROUPS, _CHOSEN, _SCORES, _IS_FIRST))
    if not (is_whole(groups) and is_whole(chosen) and 0 < chosen < groups):
        groups = chosen = None
    if is_biased:
        scores = scores or "sigmoid"
    elif scores == "softmax":  # which training has anyway
        scores = None
    if is_first is None:
        is_first = said[_NORMALISED] is False and scores in (None, "softmax")
    is_first = is_first and not said[_NORMALISED]
    return {**said, _GROUPS: groups, _CHOSEN: chosen, _SCORES: scores, _IS_FIRST: is_first}


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
