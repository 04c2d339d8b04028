"""The sizes of the axes in layouts, and what errors call them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mscvt.dialects.options import Options
from mscvt.layout.rules import EXPERT, EXPERT_TENSOR, TENSOR
from mscvt.model.family import Hyperparameters
from mscvt.model.options import flag

_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "group": "kv groups (num_key_value_heads)",
        "group slot channel": "rows of queries, keys and values",
        "q_down": "rows of the query's compression (q_lora_rank)",
        "kv_down": "rows of the compression of key and value (kv_lora_rank, qk_rope_head_dim)",
        "head": "attention heads (num_attention_heads)",
        "ffn": "FFN rows (intermediate_size)",
        "moe_ffn": "FFN rows of an expert (moe_intermediate_size)",
        "shared_ffn": "FFN rows of the shared experts",
        "expert": "experts",
        "vocab": "vocabulary rows (vocab_size)",
        "hidden": "hidden rows (hidden_size)",
        "joined_out": "hidden rows (hidden_size)",
    }
)
_CUT_BY: Mapping[str, str] = MappingProxyType(
    {
        TENSOR: "target_tensor_parallel_size",
        EXPERT: "target_expert_parallel_size",
        EXPERT_TENSOR: "target_tensor_parallel_size",
    }
)


def sizes(h: Hyperparameters) -> dict[str, int]:
    """The sizes of all axes that the rules speak of, as far as the model has them."""
    found = {name: value for name, value in h.items() if isinstance(value, int) and not isinstance(value, bool)}
    found |= {
        "hidden": h["hidden_size"],
        "joined_out": h["hidden_size"],
        "joined": 2 * h["hidden_size"],
        "vocab": h["padded_vocab_size"],
        "real_vocab": h["vocab_size"],
        "half": 2,
    }
    if h.get("ffn_hidden_size"):
        found["ffn"] = h["ffn_hidden_size"]
    if h.get("num_attention_heads"):
        found["head"] = h["num_attention_heads"]
    if h.get("kv_channels"):
        queries = h["num_attention_heads"] // h["num_query_groups"]
        found |= {
            "group": h["num_query_groups"],
            "queries": queries,
            "slot": queries + 2,
            "channel": h["kv_channels"],
        }
    if h.get("num_experts"):
        found["expert"] = h["num_experts"]
        ffn = h.get("moe_intermediate_size")
        shared = h.get("moe_shared_expert_intermediate_size")
        if ffn is not None:
            found["moe_ffn"] = ffn
            if shared is None and h.get("n_shared_experts"):
                shared = h["n_shared_experts"] * ffn
        if shared is not None:
            found["shared_ffn"] = shared
    if h.get("kv_lora_rank"):
        nope, rope, value = h["qk_nope_head_dim"], h["qk_rope_head_dim"], h["v_head_dim"]
        q_rank = h.get("q_lora_rank")
        found |= {
            "nope": nope,
            "value": value,
            "qk": nope + rope,
            "kv": nope + value,
            "kv_rank": h["kv_lora_rank"],
            "q_down": q_rank or h["num_attention_heads"] * (nope + rope),
        }
        found["kv_down"] = h["kv_lora_rank"] + rope
        found["down"] = found["q_down"] + found["kv_down"]
        if q_rank:
            found["q_rank"] = q_rank
    return found


def uneven(options: Options, axis: str, size: int, dimension: str, count: int) -> tuple[str, str]:
    """Say that an axis can't be cut evenly, and what to do about it."""
    is_apart = dimension == EXPERT_TENSOR and count != options.target_tensor_parallel_size
    by = f"{flag('expert_tensor_parallel_size' if is_apart else _CUT_BY[dimension])} {count}"
    hint = f"Choose a size that divides {size}."
    if dimension == EXPERT and options.moe_tp_extend_ep:
        by = (
            f"the {count} ranks that {flag('moe_tp_extend_ep')} spreads them over "
            f"({flag('target_expert_parallel_size')} {options.target_expert_parallel_size} x "
            f"{flag('target_tensor_parallel_size')} {options.target_tensor_parallel_size})"
        )
    elif axis == "vocab":
        hint = (
            f"{flag('make_vocab_size_divisible_by')} 1 pads it with zero rows to the next multiple of "
            f"{count} (128 is the training script's own default)."
        )
    return f"{size} {_LABELS.get(axis, axis)} are not divisible by {by}", hint
