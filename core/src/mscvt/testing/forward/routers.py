"""How much of which expert a token gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from mscvt.errors import MscvtError
from mscvt.testing.forward.model import Model
from mscvt.testing.forward.roles import Roles


def routed(x: Tensor, layer: Roles, model: Model) -> Tensor:
    """The weight of every expert for every token, zero for experts that were not chosen.

    Args:
        x: `[tokens, hidden]`.
        layer: With `moe.router` `[experts, hidden]`, perhaps `moe.router_bias` `[experts]`.
        model: For the number of experts, groups, scaling, and the router's name among its conventions.

    Returns:
        `[tokens, experts]`.

    Raises:
        MscvtError: For a router that is not known.
    """
    has_sigmoid = layer.has("moe.router_bias") or model.value("scoring_func", default=None) == "sigmoid"
    name = model.conventions.router or ("sigmoid" if has_sigmoid else "softmax")
    if name not in ROUTERS:
        raise MscvtError(f"the router is {name}, expected one of {', '.join(ROUTERS)}")
    return ROUTERS[name](x @ layer["moe.router"].T, layer, model)


def _softmax(logits: Tensor, _layer: Roles, model: Model) -> Tensor:
    """The best of a softmax; a group is as good as its best expert."""
    scores = logits.softmax(dim=-1)
    return _weighted(scores, _in_best_groups(scores, model, best=1), model)


def _sigmoid(logits: Tensor, layer: Roles, model: Model) -> Tensor:
    """The best sigmoids; a bias takes part in the choice, not in the weight; a group is as good as its best two."""
    scores = logits.sigmoid()
    bias = layer.get("moe.router_bias")
    choice = scores if bias is None else scores + bias
    return _weighted(scores, _in_best_groups(choice, model, best=2), model)


def _in_best_groups(scores: Tensor, model: Model, best: int) -> Tensor:
    """Scores, minus infinity outside the `topk_group` groups whose `best` experts have the highest sum."""
    groups = model.value("n_group", default=1)
    if groups == 1 or model.value("topk_method", default=None) == "greedy":
        return scores
    grouped = scores.unflatten(-1, (groups, -1))
    values = grouped.topk(best, dim=-1).values.sum(dim=-1)  # [tokens, groups]
    chosen = values.topk(model.value("topk_group"), dim=-1).indices
    outside = torch.ones(grouped.shape[:-1], dtype=torch.bool).scatter(-1, chosen, value=False)
    return torch.where(outside[..., None], float("-inf"), grouped).flatten(-2)


def _weighted(scores: Tensor, choice: Tensor, model: Model) -> Tensor:
    """The scores of the `num_experts_per_tok` experts with the highest `choice`, normalised and scaled."""
    experts = choice.topk(model.value("num_experts_per_tok"), dim=-1).indices
    weights = torch.zeros_like(scores).scatter(-1, experts, scores.gather(-1, experts))
    if model.value("norm_topk_prob", default=True):
        weights = weights / weights.sum(dim=-1, keepdim=True)
    scale: float = model.value("routed_scaling_factor", "router_scaling_factor", default=1.0)
    return weights * scale


def _sparsemixer(logits: Tensor, _layer: Roles, model: Model) -> Tensor:
    """One expert after the other; each one's weight is its softmax among those that come near it.

    Source: the inference half of SparseMixer-v2 (arXiv 2409.12136).
    """
    nearness = 2 * model.value("router_jitter_noise")
    weights, left = torch.zeros_like(logits), logits
    for _ in range(model.value("num_experts_per_tok")):
        best, expert = left.max(dim=-1, keepdim=True)
        far = (best - logits) / torch.maximum(logits.abs(), best) > nearness
        share = left.masked_fill(far, float("-inf")).softmax(dim=-1)
        weights = weights.scatter(-1, expert, share.gather(-1, expert))
        left = left.scatter(-1, expert, float("-inf"))
    return weights


ROUTERS: Mapping[str, Callable[[Tensor, Roles, Model], Tensor]] = MappingProxyType(
    {"softmax": _softmax, "sigmoid": _sigmoid, "sparsemixer": _sparsemixer}
)
"""Logits `[tokens, experts]`, layer, model -> weights `[tokens, experts]`."""
