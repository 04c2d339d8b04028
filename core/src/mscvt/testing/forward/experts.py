"""Routed and shared experts."""

from __future__ import annotations

import torch
from torch import Tensor

from mscvt.errors import MscvtError
from mscvt.testing.forward.linear import feed_forward, projected
from mscvt.testing.forward.model import Model
from mscvt.testing.forward.roles import Roles
from mscvt.testing.forward.routers import routed


def mixture(x: Tensor, layer: Roles, model: Model) -> Tensor:
    """The block of `moe.*`: routed experts, and a shared one, perhaps behind a gate of its own.

    Raises:
        MscvtError: Where there are more or fewer experts than rows of the router.
    """
    tokens = x.flatten(0, 1)  # [tokens, hidden]
    weights = routed(tokens, layer, model)
    experts = layer.each("moe.expert")
    if len(experts) != weights.shape[-1]:
        raise MscvtError(
            f"{layer.where} has {len(experts)} experts, expected {weights.shape[-1]} as moe.router has rows"
        )
    result = torch.zeros_like(tokens)
    for expert, weight in zip(experts, weights.T, strict=True):
        result = result + weight[:, None] * feed_forward(tokens, expert, "moe.expert", model)
    if layer.has("moe.shared"):
        shared = feed_forward(tokens, layer, "moe.shared", model)
        if layer.has("moe.shared_gate"):
            shared = shared * projected(tokens, layer, "moe.shared_gate").sigmoid()
        result = result + shared
    return result.view_as(x)
