"""The tensors of a random model: their names and shapes, as each family's checkpoints have them, and their bytes."""

from __future__ import annotations

from math import prod

import numpy as np
import torch

from random_models import WITH_LATENT_ATTENTION, WITH_MTP, Case, is_dense

POOL = np.random.Generator(np.random.PCG64(20)).integers(0, 2**32, size=1 << 20, dtype=np.uint32)
"""The bits of all weights; every tensor is a run of it that begins somewhere else."""


def shapes(case: Case) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> (shape, dtype) of every tensor of the Hugging Face checkpoint, MTP layers included."""
    c, main = case.config, case.source_dtype
    hidden = c["hidden_size"]
    found: dict[str, tuple[tuple[int, ...], str]] = {"model.embed_tokens.weight": ((c["vocab_size"], hidden), main)}
    if not c["tie_word_embeddings"] or case.has_repeated:
        found["lm_head.weight"] = ((c["vocab_size"], hidden), main)
    count = c["num_hidden_layers"]
    for i in range(count + c.get("num_nextn_predict_layers", 0)):
        layer = f"model.layers.{i}."
        rows = _latent_attention(case, layer) if case.model_type in WITH_LATENT_ATTENTION else _attention(case, layer)
        if case.model_type == "deepseek32":
            a, size, number = layer + "self_attn.", c["index_head_dim"], c["index_n_heads"]
            found[a + "indexer.k_norm.weight"] = found[a + "indexer.k_norm.bias"] = ((size,), "F32")
            rows[a + "indexer.weights_proj.weight"] = (number, hidden)
            rows[a + "indexer.wk.weight"] = (size, hidden)
            rows[a + "indexer.wq_b.weight"] = (number * size, c["q_lora_rank"])
        rows[layer + "input_layernorm.weight"] = rows[layer + "post_attention_layernorm.weight"] = (hidden,)
        if is_dense(case, i):
            rows |= _gated(layer + "mlp.", c["intermediate_size"], hidden)
        else:
            experts = c.get("n_routed_experts") or c["num_experts"]
            rows[layer + "mlp.gate.weight"] = (experts, hidden)
            for e in range(experts):
                rows |= _gated(f"{layer}mlp.experts.{e}.", c["moe_intermediate_size"], hidden)
            if case.model_type in WITH_LATENT_ATTENTION:
                shared = c["n_shared_experts"] * c["moe_intermediate_size"]
                rows |= _gated(layer + "mlp.shared_experts.", shared, hidden)
            if case.model_type in WITH_MTP:
                found[layer + "mlp.gate.e_score_correction_bias"] = ((experts,), "F32")
        if i >= count:
            rows |= {f"{layer}{name}.weight": (hidden,) for name in ("enorm", "hnorm", "shared_head.norm")}
            rows[layer + "eh_proj.weight"] = (hidden, 2 * hidden)
            if case.has_repeated:
                repeated = ("embed_tokens", "shared_head.head")
                rows |= {f"{layer}{name}.weight": (c["vocab_size"], hidden) for name in repeated}
        found |= {name: (shape, main) for name, shape in rows.items()}
    found["model.norm.weight"] = ((hidden,), main)
    return found


def _latent_attention(case: Case, layer: str) -> dict[str, tuple[int, ...]]:
    c, a = case.config, layer + "self_attn."
    hidden, heads = c["hidden_size"], c["num_attention_heads"]
    rows: dict[str, tuple[int, ...]] = {}
    qk, rope = c["qk_nope_head_dim"] + c["qk_rope_head_dim"], c["qk_rope_head_dim"]
    if case.model_type == "deepseek2-lite":
        rows[a + "q_proj.weight"] = (heads * qk, hidden)
    else:
        rows[a + "q_a_proj.weight"] = (c["q_lora_rank"], hidden)
        rows[a + "q_a_layernorm.weight"] = (c["q_lora_rank"],)
        rows[a + "q_b_proj.weight"] = (heads * qk, c["q_lora_rank"])
    rows[a + "kv_a_proj_with_mqa.weight"] = (c["kv_lora_rank"] + rope, hidden)
    rows[a + "kv_a_layernorm.weight"] = (c["kv_lora_rank"],)
    kv = c["qk_nope_head_dim"] + c["v_head_dim"]
    rows[a + "kv_b_proj.weight"] = (heads * kv, c["kv_lora_rank"])
    rows[a + "o_proj.weight"] = (hidden, heads * c["v_head_dim"])
    return rows


def _attention(case: Case, layer: str) -> dict[str, tuple[int, ...]]:
    c, a = case.config, layer + "self_attn."
    hidden, heads = c["hidden_size"], c["num_attention_heads"]
    rows: dict[str, tuple[int, ...]] = {}
    channel = c.get("head_dim") or hidden // heads
    groups = c.get("num_key_value_heads", heads)
    rows[a + "q_proj.weight"] = (heads * channel, hidden)
    rows[a + "k_proj.weight"] = rows[a + "v_proj.weight"] = (groups * channel, hidden)
    rows[a + "o_proj.weight"] = (hidden, heads * channel)
    if case.model_type != "llama2":
        rows[a + "q_norm.weight"] = rows[a + "k_norm.weight"] = (channel,)
    return rows


def _gated(prefix: str, ffn: int, hidden: int) -> dict[str, tuple[int, ...]]:
    return {
        prefix + "gate_proj.weight": (ffn, hidden),
        prefix + "up_proj.weight": (ffn, hidden),
        prefix + "down_proj.weight": (hidden, ffn),
    }


def weights(case: Case) -> dict[str, torch.Tensor]:
    """All tensors of the Hugging Face checkpoint; those that repeat another one hold its bytes."""
    made: dict[str, torch.Tensor] = {}
    for number, (name, (shape, dtype)) in enumerate(shapes(case).items()):
        repeated = _repeats(name, case)
        if repeated is not None:
            made[name] = made[repeated].clone()
            continue
        start = number * 104_729 % (len(POOL) - 20_000)
        bits = POOL[start : start + prod(shape)]
        if dtype == "BF16":
            flat = torch.from_numpy((bits.astype(np.uint16) & np.uint16(0xBF7F)).view(np.int16)).view(torch.bfloat16)
        else:
            flat = torch.from_numpy((bits & np.uint32(0xBF7FFFFF)).view(np.int32)).view(torch.float32)
        made[name] = flat.reshape(shape)
    return made


def _repeats(name: str, case: Case) -> str | None:
    head = "model.embed_tokens.weight" if case.config["tie_word_embeddings"] else "lm_head.weight"
    if name == "lm_head.weight" and case.config["tie_word_embeddings"]:
        return head
    if name.endswith("shared_head.head.weight"):
        return head
    return "model.embed_tokens.weight" if ".embed_tokens." in name and "layers" in name else None
