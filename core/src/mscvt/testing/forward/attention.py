"""Attention with keys and values for groups of heads."""

from __future__ import annotations

import torch
from torch import Tensor

from mscvt.testing.forward.linear import normalized, projected
from mscvt.testing.forward.model import Model
from mscvt.testing.forward.roles import Roles
from mscvt.testing.forward.rotary import rotated


def causal(sequence: int, window: int | None) -> Tensor:
    """Which tokens a token sees: itself and those before it, at most `window` in all.

    Returns:
        Boolean, `[query, key]`.

    >>> causal(3, window=2).int().tolist()
    [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    seen = torch.ones(sequence, sequence, dtype=torch.bool).tril()
    return seen if window is None else seen.triu(1 - window)


def attended(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float, cap: float | None = None) -> Tensor:
    """Values weighted by the softmax of scaled products.

    Args:
        q: `[batch, heads, sequence, channels]`.
        k: The same, with as many heads or with one for each group of them.
        v: As `k`; channels may be of another number.
        seen: Boolean, `[..., query, key]`.
        scale: What products are multiplied by.
        cap: Products are squeezed into -cap ... cap by a tanh.

    Returns:
        `[batch, sequence, heads * channels of v]`.
    """
    queries = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(queries, dim=1), v.repeat_interleave(queries, dim=1)
    products = q @ k.transpose(-1, -2) * scale
    if cap is not None:
        products = torch.tanh(products / cap) * cap
    weights = products.masked_fill(~seen, float("-inf")).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).flatten(-2)


def heads_of(x: Tensor, count: int) -> Tensor:
    """`[batch, sequence, heads * channels]` -> `[batch, heads, sequence, channels]`."""
    return x.view(*x.shape[:2], count, -1).transpose(1, 2)


def _normalized_heads(x: Tensor, layer: Roles, role: str, model: Model, count: int) -> Tensor:
    """Heads, normalised one by one, or all at once where the weight is as long as all heads."""
    if not layer.has(role):
        return heads_of(x, count)
    if layer[role].numel() == x.shape[-1]:
        return heads_of(normalized(x, layer, role, model), count)
    return normalized(heads_of(x, count), layer, role, model)


def _rotated_part(x: Tensor, model: Model) -> Tensor:
    """The first channels of a head turned, `partial_rotary_factor` of all."""
    channels = x.shape[-1]
    turned = int(channels * model.value("rope_parameters").get("partial_rotary_factor", 1.0))
    first = rotated(x[..., :turned], model, interleave=bool(model.value("rope_interleave", default=False)))
    return torch.cat([first, x[..., turned:]], dim=-1)


def grouped_attention(x: Tensor, layer: Roles, model: Model) -> Tensor:
    """The block of `attention.*`."""
    heads = model.value("num_attention_heads")
    groups = model.value("num_key_value_heads", default=heads)
    channels = model.value("head_dim", default=model.value("hidden_size") // heads)
    if layer.has("attention.qkv"):
        rows = [heads * channels, groups * channels, groups * channels]
        q, k, v = projected(x, layer, "attention.qkv").split(rows, dim=-1)
    else:
        q, k, v = (projected(x, layer, f"attention.{part}") for part in ("q", "k", "v"))
    q = _rotated_part(_normalized_heads(q, layer, "attention.q_norm", model, heads), model)
    k = _rotated_part(_normalized_heads(k, layer, "attention.k_norm", model, groups), model)
    seen = causal(x.shape[1], model.window(layer.index))
    scale = model.value("query_pre_attn_scalar", default=channels) ** -0.5
    cap = model.value("attn_logit_softcapping", default=None)
    return projected(attended(q, k, heads_of(v, groups), seen, scale, cap), layer, "attention.proj")
