"""Fields: where `config.json` holds a hyperparameter, and what kind of value it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from mscvt.records import dataclass

COUNT, NUMBER, FLAG, COUNTS, TEXT, WORDS, TABLE = "count", "number", "flag", "counts", "text", "words", "table"
"""The kinds of values: a whole number, any number, true or false, a list of whole numbers, a string, a list of
strings, and an object whose content is the family's business."""


@dataclass(frozen=True, slots=True)
class Field:
    """Where `config.json` holds one hyperparameter.

    `paths` are tried in order, dots going into nested objects, because transformers 4 and 5 differ. A field without a
    default must be there; `default=None` means that a model may lack it.
    """

    paths: tuple[str, ...]
    kind: str
    default: Any = ...
    least: int = 0
    """The smallest whole number that it may be."""
    among: tuple[str, ...] = ()
    """What the strings of a list may be; empty where they may be anything."""
    each_layer: bool = False
    """Whether a list has an entry for each layer; those of layers that are left out are not recorded."""

    def expected(self, value: Any, most: int = 2**40) -> str | None:
        """What the value should be, where it is something else."""
        if self.kind == COUNT:
            fits = is_whole(value) and self.least <= value <= most
            upper = f" and at most {most}" if most < 2**40 else ""
            return None if fits else f"a whole number of at least {self.least}{upper}"
        fits = {
            NUMBER: isinstance(value, float) or (is_whole(value) and abs(value) < 2**63),
            FLAG: isinstance(value, bool),
            COUNTS: isinstance(value, (list, tuple)) and all(map(is_whole, value)),
            TEXT: isinstance(value, str),
            WORDS: isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value),
            TABLE: isinstance(value, Mapping),
        }[self.kind]
        if self.among and fits and (others := sorted(set(value) - set(self.among))):
            return f"{' or '.join(self.among)} for each, not {others[0]!r:.100}"
        return None if fits else _EXPECTED[self.kind]


_EXPECTED = {
    NUMBER: "a number",
    FLAG: "true or false",
    COUNTS: "a list of whole numbers",
    TEXT: "a string",
    WORDS: "a list of strings",
    TABLE: "an object",
}


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def count(*paths: str, default: int | None = ..., least: int = 1) -> Field:  # type: ignore[assignment]
    """A whole number of at least `least`."""
    return Field(paths, COUNT, default, least)


def absent() -> Field:
    """A hyperparameter of other decoders that models of this type don't have, whatever a file says of its name."""
    return Field((), COUNT, None)


def number(*paths: str, default: float | None = ...) -> Field:  # type: ignore[assignment]
    """Any number."""
    return Field(paths, NUMBER, default)


def flag(*paths: str, default: bool | None = ...) -> Field:  # type: ignore[assignment]
    """True or false."""
    return Field(paths, FLAG, default)


def counts(*paths: str, default: tuple[int, ...] | None = ..., each_layer: bool = False) -> Field:  # type: ignore[assignment]
    """A list of whole numbers."""
    return Field(paths, COUNTS, default, each_layer=each_layer)


def text(*paths: str, default: str | None = ...) -> Field:  # type: ignore[assignment]
    """A string."""
    return Field(paths, TEXT, default)


def words(
    *paths: str,
    default: tuple[str, ...] | None = ...,  # type: ignore[assignment]
    among: tuple[str, ...] = (),
    each_layer: bool = False,
) -> Field:
    """A list of strings, of all or of some."""
    return Field(paths, WORDS, default, among=among, each_layer=each_layer)


def table(*paths: str, default: Mapping[str, Any] | None = ...) -> Field:  # type: ignore[assignment]
    """An object."""
    return Field(paths, TABLE, default)


def same(kind: Callable[..., Field], *names: str, **details: Any) -> dict[str, Field]:
    """Fields that `config.json` holds under the hyperparameters' own names, as `same(count, "head_dim")`."""
    return {name: kind(name, **details) for name in names}


DECODER_FIELDS: Mapping[str, Field] = MappingProxyType(
    {
        "num_layers": count("num_hidden_layers"),
        "hidden_size": count("hidden_size"),
        "ffn_hidden_size": count("intermediate_size"),
        "num_attention_heads": count("num_attention_heads"),
        "num_query_groups": count("num_key_value_heads", default=None),
        "kv_channels": count("head_dim", default=None),
        "vocab_size": count("vocab_size"),
        "tie_word_embeddings": flag("tie_word_embeddings", default=False),
        "norm_epsilon": number("rms_norm_eps", default=1e-6),
        "rotary_base": number("rope_theta", "rope_parameters.rope_theta", default=10000.0),
        "rotary_dim": count("rotary_dim", default=None),
        "rotary_percent": number("partial_rotary_factor", "rope_parameters.partial_rotary_factor", default=None),
        "seq_length": count("max_position_embeddings", default=4096),
    }
)
"""What every decoder's configuration holds, under the names that all of transformers shares."""

EXPERT_FIELDS: Mapping[str, Field] = MappingProxyType(
    {
        "num_experts": count("n_routed_experts", "num_experts", "num_local_experts"),
        "n_shared_experts": count("n_shared_experts", "num_shared_experts"),
        "moe_intermediate_size": count("moe_intermediate_size"),
        "first_k_dense_replace": count("first_k_dense_replace", least=0),
        "mtp_num_layers": count("num_nextn_predict_layers", "num_mtp_layers", default=0, least=0),
    }
)
"""What the configuration of a model holds that has dense layers first, then routed and shared experts, then MTP."""

STEPPED_EXPERT_FIELDS: Mapping[str, Field] = MappingProxyType(
    {
        "num_experts": count("num_experts", "num_local_experts"),
        "moe_intermediate_size": count("moe_intermediate_size"),
        "decoder_sparse_step": count("decoder_sparse_step", default=1),
        "mlp_only_layers": counts("mlp_only_layers", default=()),
    }
)
"""The same of one with experts in every so-manieth layer, and dense layers between them."""

SPARSE_EXPERT_FIELDS: Mapping[str, Field] = MappingProxyType(
    {
        "num_experts": count("num_local_experts", "num_experts"),
        "moe_intermediate_size": count("intermediate_size"),
    }
)
"""The same of one with experts in every layer, each as wide as `intermediate_size`."""

LATENT_FIELDS: Mapping[str, Field] = MappingProxyType(
    same(count, "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
)
"""What latent attention needs, besides `q_lora_rank` where the query is compressed."""
