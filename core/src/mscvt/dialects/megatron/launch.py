"""What Megatron-LM's training script must be told, so that it loads a converted checkpoint."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from mscvt.dialects.megatron.args_written import OF_FAMILIES, make_args
from mscvt.dialects.megatron.args_written import settings as settings_of
from mscvt.dialects.megatron.scaling import scaling
from mscvt.dialects.options import MEGATRON, Options
from mscvt.model.family import Hyperparameters, Layer
from mscvt.model.options import flag, rows_in
from mscvt.plugins.family import Family
from mscvt.plugins.flags import told

_NOT_PASSED = frozenset({"expert_tensor_parallel_size", "transformer_impl"})
"""Recorded options that are passed in a way of their own."""
_SIZES = (
    *("hidden_size", "ffn_hidden_size", "num_attention_heads", "kv_channels", "seq_length"),
    *("mamba_state_dim", "mamba_head_dim", "mamba_num_groups"),
    *("q_lora_rank", "kv_lora_rank", "qk_head_dim", "qk_pos_emb_head_dim", "v_head_dim"),
)
"""Sizes that training has no other way to know, with Megatron's names."""
_OURS = {"qk_head_dim": "qk_nope_head_dim", "qk_pos_emb_head_dim": "qk_rope_head_dim"}


def training_flags(
    family: Family,
    options: Options,
    h: Hyperparameters,
    kept: Sequence[Layer],
    settings: Mapping[str, Any],
) -> tuple[str, ...]:
    """What the training script must be told so that it loads the checkpoint, an option and its value each.

    Args:
        family: The family whose model it is.
        options: With defaults.
        h: The sizes of the model as it was converted.
        kept: The layers that are kept.
        settings: How tokens are routed and positions scaled, as `mscvt.dialects.settings` gives it.
    """
    roles = family.roles(kept, h)
    words = [f"--num-layers {sum(layer.mtp is None for layer in kept)}"]
    for name in _SIZES:
        value = h.get(_OURS.get(name, name))
        if value:
            words.append(f"{flag(name)} {value}")
    words += [f"--max-position-embeddings {h['seq_length']}", f"--norm-epsilon {h['norm_epsilon']}"]
    if h.get("num_query_groups") not in (None, h.get("num_attention_heads")) and "attention.proj" in roles:
        words += ["--group-query-attention", f"--num-query-groups {h['num_query_groups']}"]
    if any(role.startswith("mixer.") for role in roles):
        words.append("--spec megatron.core.models.mamba.mamba_layer_specs mamba_stack_spec")
    words += _words_of(settings_of(family, h, kept) | _routing(settings) | scaling(settings, roles), h, roles)
    for row in rows_in(Options, MEGATRON).values():
        value = getattr(options, row.name)
        if not row.recorded or row.name in _NOT_PASSED or value in (None, False, (), 0):
            continue
        written = flag(row.recorded[0])
        words.append(written if value is True else f"{written} {shlex.quote(str(value))}")
    if options.expert_tensor_parallel_size != options.target_tensor_parallel_size:
        words.append(f"--expert-tensor-parallel-size {options.expert_tensor_parallel_size}")
    words.append(f"--transformer-impl {options.transformer_impl}")
    words.append(f"--make-vocab-size-divisible-by {options.make_vocab_size_divisible_by}")
    if not h.get("tie_word_embeddings"):
        words.append("--untie-embeddings-and-output-weights")
    theirs = _of_family(family, h, kept, make_args(family, h, options, kept, ()))
    return (*(each for each in words if each.partition(" ")[0] not in theirs), *theirs.values())


def _of_family(family: Family, h: Hyperparameters, kept: Sequence[Layer], args: Mapping[str, Any]) -> Mapping[str, str]:
    """Option -> what the family says of it, and its value; those that Megatron-LM calls otherwise as it does."""
    renamed = {flag(theirs): flag(ours) for theirs, ours in OF_FAMILIES.items()}
    found = {}
    for each in family.flags(h, kept, {**family.args(h, kept), **args}, MEGATRON):
        option, _, value = each.partition(" ")
        option = renamed.get(option, option)
        found[option] = f"{option} {value}".rstrip()
    return found


def _routing(settings: Mapping[str, Any]) -> dict[str, Any]:
    """How tokens are routed."""
    return {name: value for name, value in settings.items() if name.startswith("moe_router_")}


def _words_of(settings: Mapping[str, Any], h: Hyperparameters, roles: frozenset[str]) -> list[str]:
    """What kind of model it is."""
    said: dict[str, Any] = {
        "normalization": "RMSNorm",
        "swiglu": "mlp.gate" in roles or "mlp.gate_up" in roles or "moe.router" in roles,
        "disable_bias_linear": not settings.get("add_bias_linear"),
        "position_embedding_type": "rope",
        "rotary_base": int(h["rotary_base"]),
        "qk_layernorm": bool(roles & {"attention.q_norm", "mla.q_norm", "mla.kv_norm"}),
        "multi_latent_attention": "mla.kv_down" in roles,
        "num_experts": h.get("num_experts") if "moe.router" in roles else None,
        "moe_ffn_hidden_size": h.get("moe_intermediate_size") if "moe.router" in roles else None,
    }
    said |= {name: value for name, value in settings.items() if name != "add_bias_linear"}  # holds unless disabled
    words = []
    for name, value in said.items():
        if value not in (None, False):
            words.append(told(flag(name), value))
    return words
