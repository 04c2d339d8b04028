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
    name = model.conventions.router or ("sigmoid" if layer.has("moe.router_bias") else "softmax")
    if name not in ROUTERS:
        raise MscvtError(f"the router is {name}, expected one of {', '.join(ROUTERS)}")
    return ROUTERS[name](x @ layer["moe.router"].T, layer, model)


def _softmax(logits: Tensor, layer: Roles, model: Model) -> Tensor:
    """The best of a softmax; a group is as good as its best expert."""
    return _best(logits.softmax(dim=-1), layer, model, counted=1)


def _sigmoid(logits: Tensor, layer: Roles, model: Model) -> Tensor:
    """The best of sigmoids; a group is as good as its best two experts."""
    return _best(logits.sigmoid(), layer, model, counted=2)


def _best(scores: Tensor, layer: Roles, model: Model, counted: int) -> Tensor:
    """The scores of the `num_experts_per_tok` best experts, normalised and scaled.

    A bias takes part in the choice, not in the weight.
    """
    bias = layer.get("moe.router_bias")
    choice = _in_best_groups(scores if bias is None else scores + bias, model, counted)
    experts = choice.topk(model.value("num_experts_per_tok"), dim=-1).indices
    weights = torch.zeros_like(scores).scatter(-1, experts, scores.gather(-1, experts))
    if model.value("norm_topk_prob", default=True):
        weights = weights / weights.sum(dim=-1, keepdim=True)
    scale: float = model.value("routed_scaling_factor", "router_scaling_factor", default=1.0)
    return weights * scale


def _in_best_groups(scores: Tensor, model: Model, counted: int) -> Tensor:
    """Scores, minus infinity outside the `topk_group` groups whose `counted` best experts have the highest sum."""
    groups = model.value("n_group", default=1)
    if groups == 1 or model.value("topk_method", default=None) == "greedy":
        return scores
    grouped = scores.view(len(scores), groups, -1)
    values = grouped.topk(counted, dim=-1).values.sum(dim=-1)  # [tokens, groups]
    chosen = values.topk(model.value("topk_group"), dim=-1).indices
    outside = torch.ones_like(values, dtype=torch.bool).scatter(-1, chosen, value=False)
    return torch.where(outside[..., None], float("-inf"), grouped).flatten(-2)


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
