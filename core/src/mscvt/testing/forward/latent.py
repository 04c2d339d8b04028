"""Latent attention, and the indexer that chooses the tokens it sees."""

from __future__ import annotations

import torch
from torch import Tensor

from mscvt.testing.forward.attention import attended, causal, heads_of
from mscvt.testing.forward.linear import normalized, projected
from mscvt.testing.forward.model import Model
from mscvt.testing.forward.roles import Roles
from mscvt.testing.forward.rotary import rotated

_EPS = 1e-6
"""The constant of the norms inside; the published classes take it whatever `rms_norm_eps` says."""


def latent_attention(x: Tensor, layer: Roles, model: Model) -> Tensor:
    """The block of `mla.*`: without `mla.q_up`, `mla.q_down` gives the whole query."""
    heads = model.value("num_attention_heads")
    nope, rope, value = (model.value(name) for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    interleave = bool(model.value("rope_interleave", default=True))
    latent_q = projected(x, layer, "mla.q_down")
    if layer.has("mla.q_up"):
        latent_q = normalized(latent_q, layer, "mla.q_norm", model, _EPS)
        q = projected(latent_q, layer, "mla.q_up")
    else:
        q = latent_q
    q_nope, q_rope = heads_of(q, heads).split([nope, rope], dim=-1)
    latent_kv, k_rope = projected(x, layer, "mla.kv_down").split([model.value("kv_lora_rank"), rope], dim=-1)
    latent_kv = normalized(latent_kv, layer, "mla.kv_norm", model, _EPS)
    k_nope, v = heads_of(projected(latent_kv, layer, "mla.kv_up"), heads).split([nope, value], dim=-1)
    k_rope = rotated(heads_of(k_rope, 1), model, interleave=interleave).expand(-1, heads, -1, -1)
    q = torch.cat([q_nope, rotated(q_rope, model, interleave=interleave)], dim=-1)
    k = torch.cat([k_nope, k_rope], dim=-1)
    seen = causal(x.shape[1], model.window(layer.index))
    if layer.has("indexer"):
        model.kept["indexer"] = _chosen(x, latent_q, layer, model, seen)
    if "indexer" in model.kept:  # of this layer, or of the last one that has an indexer
        seen = seen & model.kept["indexer"]
    return projected(attended(q, k, v, seen, (nope + rope) ** -0.5), layer, "mla.proj")


def _chosen(x: Tensor, latent_q: Tensor, layer: Roles, model: Model, seen: Tensor) -> Tensor:
    """The `index_topk` tokens with the highest scores for each token: boolean, `[batch, 1, query, key]`.

    Constant positive factors of the scores are left out, since only their order matters.
    """
    heads, rope = model.value("index_n_heads"), model.value("qk_rope_head_dim")
    q = heads_of(projected(latent_q, layer, "indexer.q"), heads)
    k = heads_of(normalized(projected(x, layer, "indexer.k"), layer, "indexer.k_norm", model, _EPS), 1)
    interleave = model.conventions.indexer_rope_interleave
    q, k = (torch.cat([rotated(y[..., :rope], model, interleave=interleave), y[..., rope:]], dim=-1) for y in (q, k))
    scores = torch.relu(q @ k.transpose(-1, -2))  # [batch, heads, query, key]
    weights = heads_of(projected(x, layer, "indexer.weights"), heads)  # [batch, heads, query, 1]
    scores = (weights * scores).sum(dim=1, keepdim=True).masked_fill(~seen, float("-inf"))
    best = scores.topk(min(model.value("index_topk"), x.shape[1]), dim=-1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, best, value=True)
