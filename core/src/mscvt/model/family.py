"""What a family's plugin says about its models, as data: model types, layers, configuration fields.

A plugin imports its vocabulary from here. Nothing in this module touches a file or imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Hyperparameters = Mapping[str, Any]
"""The sizes of a model under Megatron's argument names (`num_query_groups`, `kv_channels`, ...)."""

Names = Mapping[str, str]
"""Role -> Hugging Face tensor name, with `{layer}` and `{expert}` where numbers stand."""

MODEL, DENSE, MOE, MTP = "model", "dense", "moe", "mtp"
"""The kinds that names are asked for: outside of the layers, the two kinds of decoder layer, and what
an MTP layer has besides the decoder layer in it. A plugin may enumerate layers of kinds of its own."""


@dataclass(frozen=True, slots=True)
class Field:
    """Where `config.json` holds one hyperparameter.

    `paths` are tried in order, dots going into nested objects, because transformers 4 and 5 differ.
    A field without a default must be there; `default=None` means that a model may lack it.
    """

    paths: tuple[str, ...]
    default: Any = ...


def field_at(*paths: str, default: Any = ...) -> Field:
    """Name the places in `config.json` that may hold a hyperparameter, the first that is there holds."""
    return Field(paths, default)


def _matches_every(_config: Mapping[str, Any]) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class ModelType:
    """One value of `--model-type-hf`.

    Attributes:
        name: The value on the command line, for example `mine-moe`.
        config_model_types: Values of `model_type` in `config.json` that mean this type.
        fields: Hyperparameter -> where `config.json` holds it, besides the core's `DECODER_FIELDS`.
        matches: Tells apart types that share a `model_type`; called with the parsed `config.json`.
        args: Further plain values that training expects in the checkpoint's `args`.
        ignored: Patterns (`fnmatch`) of source tensors that hold no weights, such as old rotary buffers.
    """

    name: str
    config_model_types: tuple[str, ...]
    fields: Mapping[str, Field] = field(default_factory=dict)
    matches: Callable[[Mapping[str, Any]], bool] = _matches_every
    args: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ("*.rotary_emb.inv_freq",)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the source: its number in Hugging Face names, its kind, and its MTP number if it has one."""

    index: int
    kind: str
    mtp: int | None = None


DECODER_FIELDS: Mapping[str, Field] = MappingProxyType(
    {
        "num_layers": field_at("num_hidden_layers"),
        "hidden_size": field_at("hidden_size"),
        "ffn_hidden_size": field_at("intermediate_size"),
        "num_attention_heads": field_at("num_attention_heads"),
        "num_query_groups": field_at("num_key_value_heads", default=None),
        "kv_channels": field_at("head_dim", default=None),
        "vocab_size": field_at("vocab_size"),
        "tie_word_embeddings": field_at("tie_word_embeddings", default=False),
        "norm_epsilon": field_at("rms_norm_eps", default=1e-6),
        "rotary_base": field_at("rope_theta", "rope_parameters.rope_theta", default=10000.0),
        "seq_length": field_at("max_position_embeddings", default=4096),
    }
)
"""What every decoder's configuration holds, under the names that all of transformers shares."""

DECODER: Mapping[str, Names] = MappingProxyType(
    {
        MODEL: {
            "embedding": "model.embed_tokens.weight",
            "norm.final": "model.norm.weight",
            "head": "lm_head.weight",
        },
        DENSE: {
            "norm.input": "model.layers.{layer}.input_layernorm.weight",
            "attention.q": "model.layers.{layer}.self_attn.q_proj.weight",
            "attention.k": "model.layers.{layer}.self_attn.k_proj.weight",
            "attention.v": "model.layers.{layer}.self_attn.v_proj.weight",
            "attention.proj": "model.layers.{layer}.self_attn.o_proj.weight",
            "norm.pre_mlp": "model.layers.{layer}.post_attention_layernorm.weight",
            "mlp.gate": "model.layers.{layer}.mlp.gate_proj.weight",
            "mlp.up": "model.layers.{layer}.mlp.up_proj.weight",
            "mlp.down": "model.layers.{layer}.mlp.down_proj.weight",
        },
    }
)
"""The names that a plain pre-norm decoder with gated MLP has in transformers; a family starts from them."""
