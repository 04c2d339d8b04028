"""Hyperparameters from a Hugging Face `config.json`, of both generations of transformers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mscvt.errors import Faults
from mscvt.model.family import Hyperparameters, Layer, ModelType
from mscvt.model.fields import DECODER_FIELDS, Field, is_whole
from mscvt.model.options import flag

_MOST: Mapping[str, int] = {"num_layers": 1 << 14, "mtp_num_layers": 1 << 14, "num_experts": 1 << 14}
"""What things that are described one by one may count at most; published models have some hundreds."""
_MOST_LAYER_EXPERTS = 1 << 18
"""Layers times experts; the largest published models have some ten thousand."""


def model_fields(model_type: ModelType) -> dict[str, Field]:
    """Every hyperparameter of a model type and where `config.json` holds it."""
    fields = {**DECODER_FIELDS, **model_type.fields}
    return {name: entry for name, entry in fields.items() if entry.paths}


def lookup(config: Mapping[str, Any], paths: tuple[str, ...]) -> Any:
    """The value at the first path that holds one other than null, or None."""
    for path in paths:
        value: Any = config
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


def hyperparameters(config: Mapping[str, Any], model_type: ModelType, where: Path | str) -> Hyperparameters:
    """The model's sizes under Megatron's names; what the model lacks is absent.

    Raises:
        MscvtError: Where required fields are missing or have impossible values; all of them at once.
    """
    faults = Faults()
    values: dict[str, Any] = {}
    for name, entry in model_fields(model_type).items():
        value = lookup(config, entry.paths)
        if value is None:
            if entry.default is ...:
                faults.add(f"{' or '.join(entry.paths)} is missing")
                continue
            value = entry.default
        if value is not None:
            values[name] = value
    check_sizes(values, model_type, faults)
    if not faults:
        complete(values, model_type, faults)
    faults.raise_if_any(f"{where}: not a configuration of {model_type.name}")
    return values


def with_given(config: Mapping[str, Any], given: Mapping[str, int], model_type: ModelType) -> Mapping[str, Any]:
    """A configuration completed with hyperparameters that were given as options, where it does not say them.

    Raises:
        MscvtError: Where models of this type have no such hyperparameter; all of them at once.
    """
    faults = Faults()
    fields = model_fields(model_type)
    completed = dict(config)
    for name, value in given.items():
        if name not in fields:
            said = f"{flag(name)} {value}: {model_type.name} models have no such size"
            faults.add(said, hint=f"Leave out {flag(name)}.")
        elif lookup(config, fields[name].paths) is None:
            completed[next(path for path in fields[name].paths if "." not in path)] = value
    faults.raise_if_any("options that mean nothing to this model")
    return completed


def check_given(h: Hyperparameters, given: Mapping[str, int], where: Path | str) -> None:
    """Refuse hyperparameters that were given as options and are said to be others.

    Raises:
        MscvtError: All that differ.
    """
    faults = Faults()
    for name, value in given.items():
        if h.get(name) != value:
            faults.add(
                f"{flag(name)} {value} contradicts {where}, which says {h.get(name)}", hint=f"Leave out {flag(name)}."
            )
    faults.raise_if_any("the options and the model contradict each other")


def check_sizes(values: Mapping[str, Any], model_type: ModelType, faults: Faults) -> None:
    """Add a fault for each value that is not of its field's kind, or not of its size."""
    layers: Any = values.get("num_layers")
    experts = values.get("num_experts")
    for name, entry in model_fields(model_type).items():
        value = values.get(name)
        if value is not None and (expected := entry.expected(value, _MOST.get(name, 2**40))):
            faults.add(f"{(*entry.paths, name)[0]} is {shown_value(value)}, expected {expected}")
        elif entry.each_layer and value is not None and is_whole(layers) and len(value) < layers:
            faults.add(f"{entry.paths[0]} has {len(value)} entries, expected one for each of {layers} layers")
    if not faults and layers and experts and layers * experts > _MOST_LAYER_EXPERTS:
        faults.add(f"{layers} layers with {experts} experts each are more than any model has")


def of_kept_layers(h: Hyperparameters, model_type: ModelType, kept: Iterable[Layer]) -> dict[str, Any]:
    """Lists with an entry for each layer, without those of layers that are left out."""
    indices = [layer.index for layer in kept if layer.mtp is None]
    lists = {name: h[name] for name, entry in model_fields(model_type).items() if entry.each_layer and name in h}
    return {name: [*(items[i] for i in indices), *items[h["num_layers"] :]] for name, items in lists.items()}


def sizes_of_kept(h: Hyperparameters, model_type: ModelType, kept: Sequence[Layer]) -> Hyperparameters:
    """The sizes of a model of which some layers are left out; the way back knows no others."""
    count = sum(layer.mtp is None for layer in kept)
    return h if count == h["num_layers"] else {**h, **of_kept_layers(h, model_type, kept), "num_layers": count}


def shown_value(value: Any) -> str:
    """A value for an error; a file may hold anything."""
    text = repr(value) if isinstance(value, (int, float, str, bool)) else type(value).__name__
    return text if len(text) <= 100 else f"{text[:100]}..."


def complete(values: dict[str, Any], model_type: ModelType, faults: Faults) -> None:
    """Derive what a configuration may leave out: kv groups and the size of a head, where heads have one size."""
    heads, hidden = values.get("num_attention_heads"), values["hidden_size"]
    if heads is None:
        return
    values.setdefault("num_query_groups", heads)
    if "kv_channels" not in model_fields(model_type):
        return
    if values.get("kv_lora_rank"):
        for name in ("kv_channels", "rotary_dim", "rotary_percent"):  # the rope rows of a head have a size of their own
            values.pop(name, None)
        return
    if heads % values["num_query_groups"]:
        faults.add(f"{heads} attention heads don't divide into {values['num_query_groups']} kv groups")
    if "kv_channels" not in values:
        if hidden % heads:
            faults.add(
                f"hidden size {hidden} doesn't divide into {heads} heads and there is no head_dim",
                hint="Put head_dim into config.json; for a checkpoint of training, --hf-cfg-dir gives it the model's.",
            )
        values["kv_channels"] = hidden // heads
    if values.get("rotary_dim"):
        values.setdefault("rotary_percent", values["rotary_dim"] / values["kv_channels"])


def pad_vocabulary(hyperparameters: Hyperparameters, multiple: int | None, tensor: int) -> Hyperparameters:
    """Add `padded_vocab_size`: the vocabulary filled up to a multiple of `multiple * tensor` rows."""
    vocab = hyperparameters["vocab_size"]
    step = multiple * tensor if multiple else 1
    return {**hyperparameters, "padded_vocab_size": -(-vocab // step) * step}
