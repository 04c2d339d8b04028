"""What a family's plugin says about its models, as data: model types and layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

from mscvt.model.fields import Field
from mscvt.records import dataclass

Hyperparameters = Mapping[str, Any]
"""The sizes of a model under Megatron's argument names (`num_query_groups`, `kv_channels`, ...)."""

Names = Mapping[str, Mapping[str, str]]
"""Block -> role -> the name of a Hugging Face tensor."""

MODEL, MTP, MTP_REPEATS = "model", "mtp", "mtp_repeats"
"""The blocks of names outside of the decoder layers: the ends of the model, what an MTP layer has besides the decoder
layer in it, and what of the ends only some checkpoints repeat there."""

DENSE = ("attention", "mlp")
MOE = ("attention", "moe")
"""The kinds of the two usual decoder layers: the blocks that they consist of. A plugin may have kinds of its own."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the source.

    Attributes:
        index: Its number in Hugging Face names.
        kind: The blocks that it consists of, whose names are merged.
        mtp: Its MTP number, if it is an MTP layer.
        sizes: Sizes of its own, where layers of one model differ.
    """

    index: int
    kind: tuple[str, ...]
    mtp: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Own:
    """One of a family's own tensors, for which no dialect has a rule: the same on both sides, cut or not.

    Attributes:
        role: What it is.
        name: Its Hugging Face name.
        key: Its key after the layer's prefix.
        axes: Its axes in memory order.
        cuts: Axis -> the parallel dimension that divides it.
        keeps_dtype: True where `--dtype` must leave it alone.
    """

    role: str
    name: str
    key: str
    axes: str
    cuts: Mapping[str, str] = field(default_factory=dict, hash=False)
    keeps_dtype: bool = False


Flags = Sequence[str] | Callable[[Hyperparameters, Sequence[Layer]], Sequence[str]]
"""What the training script must be told: flags, or a function that gives them."""


def matches_every(_config: Mapping[str, Any]) -> bool:
    """What tells a model type apart that is told apart by its `model_type` alone."""
    return True


def _no_sizes(_hyperparameters: Hyperparameters) -> Mapping[str, int]:
    return {}


def _as_it_is(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return config


def _nothing(_hyperparameters: Hyperparameters) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class ModelType:
    """One value of `--model-type-hf`.

    Attributes:
        name: The value on the command line, for example `mine-moe`.
        config_model_types: Values of `model_type` in `config.json` that mean this type.
        fields: Hyperparameter -> where `config.json` holds it, besides the core's `DECODER_FIELDS`, or instead of one.
        matches: Tells apart types that share a `model_type`; called with the parsed `config.json`. One that has none is
            what remains where the plugin's others don't match.
        sizes: Sizes that rules speak of and that follow from the hyperparameters, such as products of them.
        respell: Gives a `config.json` that says things in another way in the spelling that `fields` are read in.
        refused: Option of the dialect -> why models of this type can't have it.
        noted: Option of the dialect -> what there is to say where a model of this type is converted with it.
        args: Further plain values that training expects in the checkpoint's `args`, or a function that gives them for
            the hyperparameters and the layers that are kept.
        flags: What the training script must be told of the model itself: names of hyperparameters or of `args`, and
            flags as they are written, with such names in braces; what a model lacks is left out. Or a function that
            gives flags for the hyperparameters and the layers that are kept. They are told under every dialect; a table
            dialect -> flags has those of each.
        ignored: Patterns (`fnmatch`) of source tensors that hold no weights, such as old rotary buffers.
        spellings: Name of a source tensor -> the one that `mscvt_names` gives it, where sources differ in names.
        repeats_ends: Whether checkpoints have the tensors of the ends that the block `mtp` names again, where nothing
            is recorded of the original.
        left_out: Patterns of further source tensors that are not converted -> why, for its hyperparameters.
        dialects: Dialects besides the usual one for which `mscvt_split_rules` gives rules too, where it gives any.
        names: Block -> role -> Hugging Face name, for blocks of which `mscvt_names` says nothing.
        names_if: Hyperparameter -> such names that there are besides in models for which it is true.
        own: Block -> tensors of its own, of which this says names and rules in one.
        mtp_prefix: What names of an MTP layer begin with in the place of all up to `{layer}.`; empty where nothing
            else.
    """

    name: str
    config_model_types: tuple[str, ...]
    fields: Mapping[str, Field] = field(default_factory=dict)
    matches: Callable[[Mapping[str, Any]], bool] = matches_every
    sizes: Callable[[Hyperparameters], Mapping[str, int]] = _no_sizes
    respell: Callable[[Mapping[str, Any]], Mapping[str, Any]] = _as_it_is
    refused: Mapping[str, str] = field(default_factory=dict)
    noted: Mapping[str, str] = field(default_factory=dict)
    args: Mapping[str, Any] | Callable[[Hyperparameters, Sequence[Layer]], Mapping[str, Any]] = field(
        default_factory=dict
    )
    flags: Flags | Mapping[str, Flags] = ()
    ignored: tuple[str, ...] = ("*.rotary_emb.inv_freq",)
    spellings: Mapping[str, str] = field(default_factory=dict)
    repeats_ends: bool = True
    left_out: Callable[[Hyperparameters], Mapping[str, str]] = _nothing
    dialects: tuple[str, ...] = ()
    names: Names = field(default_factory=dict)
    names_if: Mapping[str, Names] = field(default_factory=dict)
    own: Mapping[str, Sequence[Own]] = field(default_factory=dict)
    mtp_prefix: str = ""
