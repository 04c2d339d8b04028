"""Which fields of `config.json` hold a family's hyperparameters: by their usual names, and by the shapes of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from types import MappingProxyType
from typing import Any

from mscvt.authoring.recognised import Recognised
from mscvt.dialects.settings import CONFIG_FIELDS
from mscvt.model.fields import DECODER_FIELDS, Field, count, flag, is_whole
from mscvt.model.hyperparameters import lookup
from mscvt.records import dataclass

_OTHER_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "num_layers": ("n_layer", "n_layers", "num_layers"),
        "hidden_size": ("n_embd", "d_model", "dim"),
        "ffn_hidden_size": ("ffn_hidden_size", "ffn_dim", "n_inner", "moe_intermediate_size"),
        "num_attention_heads": ("n_head", "n_heads", "num_heads"),
        "num_query_groups": ("num_kv_heads", "n_kv_heads", "multi_query_group_num"),
        "kv_channels": ("kv_channels", "attention_head_dim"),
        "vocab_size": ("padded_vocab_size", "n_vocab"),
        "norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps", "layernorm_epsilon"),
    }
)
"""Hyperparameter -> what configurations call it that don't call it as the core expects."""
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_moe_experts")
_SYNONYMS = ("num_experts", "num_local_experts")
"""Two names of one thing: which of them transformers writes depends on its version."""
_EXPERT_SIZES = ("moe_intermediate_size", "expert_intermediate_size", "intermediate_size")
_SHARED_SIZES = ("moe_shared_expert_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size")
_SHARED_COUNTS = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
_TOPK = ("moe_k", "moe_top_k", "num_experts_per_token", "num_selected_experts")
_LATENT = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
_WITHOUT_EFFECT = (
    *("_*", "architectures", "auto_map", "model_type", "transformers_version", "dtype", "torch_dtype"),
    *("*_token_id", "*dropout*", "initializer_*", "use_cache", "output_*", "*aux_loss*", "quantization_config"),
)
"""Fields that are about files, text, training or generating."""
_USUAL_LAYER = "full_attention"
_UNREMARKABLE: Mapping[str, Any] = MappingProxyType({"hidden_act": "silu", "pretraining_tp": 1})
"""Other fields, and the value that says what is so anyway."""


@dataclass(frozen=True, slots=True)
class Fields:
    """What a model type has besides, or instead of, the core's fields."""

    fields: Mapping[str, Field]
    notes: tuple[str, ...]


def find_fields(config: Mapping[str, Any], found: Recognised, *, is_usually_tied: bool) -> Fields:
    """Find the fields of a configuration.

    Args:
        config: The parsed `config.json`.
        found: The roles of the checkpoint.
        is_usually_tied: Whether the embedding is the output layer where a configuration doesn't say it.
    """
    fields: dict[str, Field] = {}
    notes: list[str] = []
    _renamed(config, fields, notes)
    if is_usually_tied:
        fields["tie_word_embeddings"] = flag("tie_word_embeddings", default=True)
    if found.experts:
        _of_experts(config, found, fields, notes)
    if "mla.kv_down" in found.shapes:
        fields |= {name: count(name) for name in (*_LATENT, *(["q_lora_rank"] * ("mla.q_up" in found.shapes)))}
    if found.mtp:
        fields["mtp_num_layers"] = count("num_nextn_predict_layers", default=0, least=0)
    return Fields(fields, tuple(notes))


def unread(config: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """What a configuration says that nothing reads, and that may change tensors or what they mean.

    Args:
        config: The parsed `config.json`.
        fields: The model type's own fields.
    """
    read = {path.partition(".")[0] for entry in {**DECODER_FIELDS, **fields}.values() for path in entry.paths}
    return {
        name: value
        for name, value in sorted(config.items())
        if name not in read | CONFIG_FIELDS
        and not any(fnmatch(name, pattern) for pattern in _WITHOUT_EFFECT)
        and value is not None
        and value != _UNREMARKABLE.get(name, ...)
        and not (name == "layer_types" and isinstance(value, list) and all(kind == _USUAL_LAYER for kind in value))
    }


def _renamed(config: Mapping[str, Any], fields: dict[str, Field], notes: list[str]) -> None:
    """Fields of the core that this configuration calls by another name."""
    for name, usual in DECODER_FIELDS.items():
        if lookup(config, usual.paths) is not None:
            continue
        other = next((path for path in _OTHER_NAMES.get(name, ()) if config.get(path) is not None), None)
        if other is not None:
            fields[name] = Field((other, *usual.paths), usual.kind, usual.default, usual.least)
        elif usual.default is ...:
            notes.append(f"field {name}: config.json has no {' or '.join(usual.paths)}")


def _of_experts(config: Mapping[str, Any], found: Recognised, fields: dict[str, Field], notes: list[str]) -> None:
    router = _with_value(config, _EXPERT_COUNTS, found.experts)
    if router is None:
        notes.append(f"field num_experts: no field of config.json is {found.experts}")
        router = _EXPERT_COUNTS[0]
    fields["num_experts"] = count(router, *(other for other in _SYNONYMS if router in _SYNONYMS and other != router))
    size = found.shapes["moe.expert.down"][-1] if "moe.expert.down" in found.shapes else 0
    name = _with_value(config, _EXPERT_SIZES, size)
    if name is None:
        notes.append(f"field moe_intermediate_size: no field of config.json is {size}")
    fields["moe_intermediate_size"] = count(name or _EXPERT_SIZES[0])
    if (chosen := next((name for name in _TOPK if name in config), None)) and "num_experts_per_tok" not in config:
        fields["moe_router_topk"] = count(chosen)
    if "moe.shared.down" in found.shapes:
        shared = found.shapes["moe.shared.down"][-1]
        if (width := _with_value(config, _SHARED_SIZES, shared)) is not None:
            fields["moe_shared_expert_intermediate_size"] = count(width)
        elif size and (several := _with_value(config, _SHARED_COUNTS, shared // size)) is not None:
            fields["n_shared_experts"] = count(several)
        else:
            notes.append(f"field moe_shared_expert_intermediate_size: no field of config.json is {shared}")


def _with_value(config: Mapping[str, Any], names: Sequence[str], value: int) -> str | None:
    """The field with this value: one of the usual names, or else the only one."""
    for name in names:
        if config.get(name) == value:
            return name
    others = [name for name, other in config.items() if is_whole(other) and other == value]
    return others[0] if len(others) == 1 else None
