"""A draft: all that a new plugin says of its family, before it is text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from mscvt.authoring.config_fields import find_fields, unread
from mscvt.authoring.layer_rules import layer_rule
from mscvt.authoring.recognised import recognise
from mscvt.authoring.small_config import small_config
from mscvt.layout.rules import Rule, whole
from mscvt.model.family import DENSE, Layer, ModelType
from mscvt.model.fields import DECODER_FIELDS, Field, is_whole
from mscvt.model.hyperparameters import lookup
from mscvt.plugins import defaults
from mscvt.plugins.blocks import DECODER, ENDS
from mscvt.plugins.family import Family, Plugin
from mscvt.records import dataclass
from mscvt.tensors.info import TensorInfo


@dataclass(frozen=True, slots=True)
class Draft:
    """What is known of a family."""

    name: str
    """Of the model type."""
    config_type: str
    """The `model_type` of `config.json`."""
    blocks: Mapping[str, Mapping[str, str]]
    fields: Mapping[str, Field]
    rules: tuple[Rule, ...]
    """Of its own, each with one whole source."""
    dense: tuple[int, ...]
    """The dense layers of the checkpoint, in a model with experts, where no field says which they are."""
    mtp: int
    config: Mapping[str, Any]
    """A small one, for tests."""
    notes: tuple[str, ...] = ()
    unread: Mapping[str, Any] = field(default_factory=dict)
    """What the checkpoint's configuration says that nothing reads."""


_PLAIN: Mapping[str, Any] = {
    "num_hidden_layers": 4,
    "hidden_size": 72,
    "intermediate_size": 56,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}


def plain_draft(name: str) -> Draft:
    """A plain decoder."""
    said = name.replace("-", "_")
    config = {"model_type": said, "dtype": "bfloat16", **_PLAIN}
    return Draft(name, said, DECODER, {}, (), (), 0, config)


def draft_from(
    name: str, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], usual: Mapping[str, Any] | None = None
) -> Draft:
    """What a checkpoint shows of its family.

    Args:
        name: Of the model type.
        config: The parsed `config.json`.
        tensors: Every tensor.
        usual: What a configuration of the model's own class says where nothing is said, as far as that is known.
    """
    count = lookup(config, (*DECODER_FIELDS["num_layers"].paths, "n_layer", "n_layers"))
    layers = count if is_whole(count) else 0
    found = recognise(tensors, layers)
    has_head = "head" in found.blocks["model"]
    blocks = found.blocks if has_head else {**found.blocks, "model": {**found.blocks["model"], "head": ENDS["head"]}}
    is_usually_tied = (usual or {}).get("tie_word_embeddings", not has_head) is True
    fields = find_fields(config, found, is_usually_tied=is_usually_tied)
    notes = list(fields.notes)
    rule = layer_rule(config, layers, found.dense) if found.dense else None
    if found.dense and rule is None:
        notes.append(f"layers: no usual field of config.json says that {list(found.dense)} are the dense ones")
    every = {**fields.fields, **(rule.fields if rule else {})}
    if "attention.qkv" in found.shapes:
        notes.append("attention.qkv: taken as all queries, then all keys, then all values; the model's code says")
    said = config.get("model_type")
    return Draft(
        name=name,
        config_type=said if isinstance(said, str) else name,
        blocks=blocks,
        fields=every,
        rules=tuple(_norms_of_heads(config, every, found.shapes)),
        dense=() if rule else found.dense,
        mtp=found.mtp,
        config=small_config(config, every),
        notes=tuple(notes),
        unread=unread(config, every),
    )


def with_head_size(draft: Draft) -> Draft | None:
    """The draft with heads in its small configuration that are not as large as the hidden size makes them.

    None where they are so already, or have sizes of another kind.
    """
    config = draft.config
    is_plain = "kv_lora_rank" not in draft.fields and {"hidden_size", "num_attention_heads"} <= config.keys()
    if not is_plain or lookup(config, {**DECODER_FIELDS, **draft.fields}["kv_channels"].paths) is not None:
        return None
    return replace(draft, config={**config, **{name: _PLAIN[name] for name in ("hidden_size", "head_dim")}})


def _norms_of_heads(
    config: Mapping[str, Any], fields: Mapping[str, Field], shapes: Mapping[str, tuple[int, ...]]
) -> list[Rule]:
    """Rules for norms of all heads together; the dialect's are of one head."""
    every = {**DECODER_FIELDS, **fields}
    heads, groups, channels, hidden = (
        lookup(config, every[name].paths)
        for name in ("num_attention_heads", "num_query_groups", "kv_channels", "hidden_size")
    )
    if not (is_whole(heads) and heads and is_whole(hidden)):
        return []
    size = channels or hidden // heads
    rules = []
    for letter, axis, many in (("q", "head", heads), ("k", "group", groups or heads)):
        role = f"attention.{letter}_norm"
        axes = {(many * size,): f"({axis} channel)", (many, size): f"{axis} channel"}.get(shapes.get(role, ()))
        if axes is not None and many > 1:
            rules.append(whole(f"self_attention.{letter}_layernorm.weight", role, axes))
    return rules


def drafted_family(draft: Draft) -> Family:
    """The family as the plugin will serve it for the draft's own checkpoint, to compare with that."""

    def layers(hyperparameters: Mapping[str, Any]) -> list[Layer]:
        usual = defaults.mscvt_layers(hyperparameters)
        return [replace(layer, kind=DENSE) if layer.index in draft.dense else layer for layer in usual]

    hooks = {
        "mscvt_names": lambda model_type, block, hyperparameters: draft.blocks.get(block),
        "mscvt_layers": lambda model_type, hyperparameters: layers(hyperparameters),
        "mscvt_split_rules": lambda model_type, hyperparameters, blocks: draft.rules,
        "mscvt_placement": lambda model_type, topology, layers: defaults.mscvt_placement(topology, layers),
    }
    plugin = Plugin(f"mscvt-{draft.name}", "0.1.0", "")
    return Family(ModelType(draft.name, (draft.config_type,), draft.fields), plugin, hooks)
