"""The forward pass: embedding, layers, head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from mscvt.errors import MscvtError
from mscvt.testing.forward.attention import grouped_attention
from mscvt.testing.forward.experts import mixture
from mscvt.testing.forward.latent import latent_attention
from mscvt.testing.forward.linear import dense, normalized, projected
from mscvt.testing.forward.model import Block, Conventions, Model
from mscvt.testing.forward.roles import Roles

_MIXERS: Mapping[str, Block] = MappingProxyType({"attention": grouped_attention, "mla": latent_attention})
_FEED_FORWARDS: Mapping[str, Block] = MappingProxyType({"mlp": dense, "moe": mixture})


@torch.no_grad()
def forward(
    ends: Mapping[str, Tensor | Sequence[Tensor]],
    layers: Sequence[Mapping[str, Tensor | Sequence[Tensor]]],
    config: Mapping[str, Any],
    tokens: Tensor,
    *,
    conventions: Conventions | None = None,
    blocks: Mapping[str, Block] = MappingProxyType({}),
) -> Tensor:
    """The logits of a decoder whose tensors are known by their roles; what roles a layer has decides what it computes.

    Args:
        ends: The roles of the model as a whole: `embedding`, `norm.final`, `head` unless embedding and head are tied.
        layers: The roles of every decoder layer, in order. Experts: a sequence with one tensor for each.
        config: `config.json` as transformers 5 writes it, with all its fields.
        tokens: `[batch, sequence]`, without padding.
        conventions: What the configuration does not say.
        blocks: The first word of roles -> what such a layer computes in place of attention; for `mlp` and `moe`, in
            place of the core's own.

    Returns:
        Float32, `[batch, sequence, vocab]`.

    Raises:
        MscvtError: For roles that are missing or that nothing asks for, and shapes that don't fit together.
    """
    model = Model(config, conventions or Conventions())
    feed_forwards = {prefix: blocks.get(prefix, block) for prefix, block in _FEED_FORWARDS.items()}
    mixers = {**_MIXERS, **{prefix: block for prefix, block in blocks.items() if prefix not in _FEED_FORWARDS}}
    outer = Roles("the model", ends)
    x = outer["embedding"][tokens]
    if model.conventions.scales_embedding:
        x = x * model.value("hidden_size") ** 0.5
    for index, tensors in enumerate(layers):
        layer = Roles(f"layer {index}", tensors, index)
        try:
            x = _through(x, layer, model, mixers, feed_forwards)
        except RuntimeError as error:
            raise MscvtError(
                f"{layer.where}: shapes don't fit together: {error}",
                hint="A role has another role's tensor, or the configuration has other sizes.",
                faults=layer.shapes(),
            ) from error
        _refuse_unread(layer)
    logits = _headed(normalized(x, outer, "norm.final", model), outer, model)
    _refuse_unread(outer)
    return logits


def _through(
    x: Tensor, layer: Roles, model: Model, mixers: Mapping[str, Block], feed_forwards: Mapping[str, Block]
) -> Tensor:
    """One layer: a mixer of tokens, then a feed-forward if it has one, each with a norm before, after, or both."""
    mix = _only(layer, mixers)
    if mix is None:
        raise MscvtError(
            f"{layer.where} has no roles that begin with {', '.join(mixers)}",
            hint="Give what it computes as a block of its own.",
            faults=sorted(layer.tensors),
        )
    x = x + _framed(x, layer, model, mix, "norm.input", "norm.post_attention")
    feed = _only(layer, feed_forwards)
    return x if feed is None else x + _framed(x, layer, model, feed, "norm.pre_mlp", "norm.post_mlp")


def _framed(x: Tensor, layer: Roles, model: Model, block: Block, before: str, after: str) -> Tensor:
    if layer.has(before) or not layer.has(after):
        x = normalized(x, layer, before, model)
    result = block(x, layer, model)
    return normalized(result, layer, after, model) if layer.has(after) else result


def _only(layer: Roles, table: Mapping[str, Block]) -> Block | None:
    found = [prefix for prefix in table if layer.has(prefix)]
    if len(found) > 1:
        raise MscvtError(f"{layer.where} has roles of {' and of '.join(found)}, expected one of them")
    return table[found[0]] if found else None


def _headed(x: Tensor, outer: Roles, model: Model) -> Tensor:
    if outer.has("head"):
        logits = projected(x, outer, "head")
    elif model.value("tie_word_embeddings", default=False):
        logits = x @ outer["embedding"].T
    else:
        raise MscvtError(
            "the model has no tensor for the role head", hint="Without it, config.json must say tie_word_embeddings."
        )
    cap = model.value("final_logit_softcapping", default=None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _refuse_unread(roles: Roles) -> None:
    if unread := roles.unread():
        raise MscvtError(
            f"{roles.where} has roles that nothing computes with: {', '.join(unread)}",
            hint="A role is misspelt, doesn't belong to such a layer, or needs a block of its own.",
        )
