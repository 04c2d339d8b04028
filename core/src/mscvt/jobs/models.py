"""The model that a request speaks of: from a `config.json` and options, or from what a checkpoint recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mscvt.description.description import Description, describe
from mscvt.dialects import mindspeed
from mscvt.dialects.mindspeed.options import Options
from mscvt.errors import Faults, MscvtError
from mscvt.jobs.request import Request
from mscvt.model.family import Hyperparameters, Layer
from mscvt.model.hyperparameters import check_given, hyperparameters, model_fields, pad_vocabulary, with_given
from mscvt.model.layers import Selection, select_layers
from mscvt.model.options import check_features, check_refused, check_values, flag, notes_on, with_defaults
from mscvt.model.values import shown
from mscvt.parallel.topology import Topology
from mscvt.plugins.family import Family
from mscvt.plugins.registry import Registry


@dataclass(frozen=True)
class Model:
    """A model in a training stack's layout."""

    family: Family
    h: Hyperparameters
    """The sizes of the model as it is converted, with MTP layers and padding."""
    options: Options
    """With defaults."""
    description: Description
    kept: tuple[Layer, ...]
    """The layers that are kept."""
    layers: int
    """How many of them are decoder layers."""
    notes: tuple[str, ...] = ()
    """What was passed over or should be known, one line each."""


def check_options(options: Options) -> None:
    """Refuse values that no model could have.

    Raises:
        MscvtError: All faults at once.
    """
    faults = Faults()
    check_values(options, faults)
    faults.raise_if_any("options with impossible values")


def model_from_config(
    family: Family,
    config: Mapping[str, Any],
    asked: Options,
    where: Path | str,
    *,
    given: Mapping[str, int] = MappingProxyType({}),
) -> Model:
    """The model that a `config.json` and options ask for.

    Args:
        family: The family.
        config: The configuration.
        asked: The options.
        where: The configuration's file, for errors.
        given: Hyperparameters that hold where the configuration doesn't say them.

    Raises:
        MscvtError: Where they contradict one another or the family.
    """
    check_options(asked)
    h = hyperparameters(family.respelled(with_given(config, given, family.model_type)), family.model_type, where)
    check_given(h, given, where)
    layers = family.layers(h)
    faults = Faults()
    check_features(asked, family.features(layers, h), family.model_type.name, faults)
    check_refused(asked, family.model_type.refused, family.model_type.name, faults)
    faults.raise_if_any("options that mean nothing to this model")
    options = with_defaults(asked)
    mindspeed.check(options)
    h = pad_vocabulary(h, options.make_vocab_size_divisible_by, options.target_tensor_parallel_size or 1)
    selection = select_layers(layers, options)
    topology = mindspeed.topology(options, selection.decoder_count)
    description = describe(family, h, options, topology, selection, mindspeed)
    h = {**h, "mtp_num_layers": options.mtp_num_layers or 0}
    notes = _shifted_layers(family, {**h, **family.args(h, selection.kept)}, options, topology, selection)
    notes += notes_on(asked, family.model_type.noted, family.model_type.name)
    return Model(family, h, options, description, selection.kept, selection.decoder_count, notes)


def _shifted_layers(
    family: Family, h: Hyperparameters, options: Options, topology: Topology, selection: Selection
) -> tuple[str, ...]:
    """Say where noop slots make a layer one of another kind: training goes by the number of the slot."""
    if not topology.noop:
        return ()
    slots = [chunk.slots[number] for chunk, number in topology.place_layers()]
    if options.first_k_dense_replace is not None:
        h = {**h, "first_k_dense_replace": options.first_k_dense_replace}
    try:
        described = family.layers({**h, "num_layers": slots[-1] + 1, "mtp_num_layers": 0})
    except MscvtError:  # of a list with an entry for each layer, which ends before the last slot
        described = family.layers({**h, "num_layers": len(slots), "mtp_num_layers": 0})
    kinds = {layer.index: layer.kind for layer in described}
    kept = [layer for layer in selection.kept if layer.mtp is None]
    if not (shifted := [layer.index for layer, slot in zip(kept, slots, strict=True) if layer.kind != kinds.get(slot)]):
        return ()
    return (
        f"training counts noop slots when it decides what kind of layer to build: with {flag('noop_layers')} "
        f"{shown(options.noop_layers)} it builds others than this checkpoint has, for layer {shifted[0]} first",
    )


def model_from_args(
    args: Mapping[str, Any],
    config: Mapping[str, Any] | None,
    request: Request,
    registry: Registry,
    *,
    against_original: bool = False,
) -> Model:
    """The model of a checkpoint, from its args and, where given, a `config.json`.

    Args:
        args: The checkpoint's args.
        config: The configuration, or None.
        request: What was asked for.
        registry: The plugins.
        against_original: Whether layers have their numbers in the model that the configuration is of, which may have
            more of them, or those that the way back gives.

    Raises:
        MscvtError: Where the checkpoint doesn't say enough, or what it says contradicts what was asked for.
    """
    family = _family_of(args, config, request, registry)
    args = {**args, **{name: value for name, value in request.given.items() if args.get(name) is None}}
    args, notes = mindspeed.in_our_words(args, has_experts="num_experts" in model_fields(family.model_type))
    options, more = mindspeed.read_options(args, request.options)
    options = with_defaults(options)
    configured = None
    if config is not None:
        where = f"{request.hf_cfg_dir}/config.json"
        configured = hyperparameters(family.respelled(config), family.model_type, where)
    h = mindspeed.read_hyperparameters(args, family, options, configured)
    check_given(h, request.given, "the checkpoint")
    enumerated = configured if against_original and configured else h
    fewer = {
        name: h[name]
        for name in ("num_layers", "first_k_dense_replace")
        if name in h and h[name] < enumerated.get(name, h[name])
    }
    reduced = replace(options, **fewer)
    selection = select_layers(family.layers(enumerated), reduced)
    topology = mindspeed.topology(options, selection.decoder_count)
    mindspeed.check_meaning(args, family.args(h, selection.kept), family.features(selection.kept, h))
    absent = mindspeed.absent_copies(args)
    description = describe(family, h, reduced, topology, selection, mindspeed, absent=absent)
    return Model(family, h, options, description, selection.kept, selection.decoder_count, (*notes, *more))


def _family_of(
    args: Mapping[str, Any], config: Mapping[str, Any] | None, request: Request, registry: Registry
) -> Family:
    recorded = mindspeed.read_model_type(args)
    name = request.model_type or recorded
    if name is None and config is None:
        raise MscvtError(
            "the checkpoint doesn't say what model it is",
            hint="Give --model-type-hf, or --hf-cfg-dir with its config.json.",
        )
    family = registry.family(name) if name else registry.recognise(config or {})
    if recorded and family.model_type.name != recorded:
        raise MscvtError(
            f"--model-type-hf {family.model_type.name} contradicts the checkpoint, whose args record {recorded}",
            hint="Leave the option out: what args record is the default.",
        )
    if config is not None:
        said = config.get("model_type")
        claims = [name for name, other in registry.families.items() if said in other.model_type.config_model_types]
        if claims and family.model_type.name not in claims:
            raise MscvtError(
                f"config.json says model_type {said!r}, the checkpoint is {family.model_type.name}",
                hint="Give the folder of this model's configuration.",
            )
    return family
