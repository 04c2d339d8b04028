"""The model that a request speaks of: from a `config.json` and options, or from what a checkpoint recorded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from mscvt.description.description import Description, describe
from mscvt.dialects.args_meaning import check_meaning, said_by_roles
from mscvt.dialects.args_read import absent_copies, read_hyperparameters, read_model_type, read_options
from mscvt.dialects.dialect import Dialect
from mscvt.dialects.known import Recognised, dialect_of, recognise
from mscvt.dialects.options import MEGATRON, TORCH_DIST, Options
from mscvt.errors import Faults, MscvtError
from mscvt.jobs.request import Request
from mscvt.model.family import Hyperparameters, Layer
from mscvt.model.hyperparameters import (
    check_given,
    hyperparameters,
    model_fields,
    of_kept_layers,
    pad_vocabulary,
    with_given,
)
from mscvt.model.layers import Selection, select_layers
from mscvt.model.options import (
    check_dialect,
    check_features,
    check_refused,
    check_values,
    flag,
    notes_on,
    with_defaults,
)
from mscvt.model.values import shown
from mscvt.parallel.topology import Topology
from mscvt.plugins.family import Family
from mscvt.plugins.registry import Registry
from mscvt.records import dataclass


class Existing(Protocol):
    """A checkpoint that is there already."""

    @property
    def ckpt_format(self) -> str:
        """A value of `--ckpt-format`."""

    @property
    def args(self) -> Mapping[str, Any]:
        """What it recorded."""

    @property
    def some_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Key -> shape of some of its tensors, by which the dialect is told."""

    @property
    def ranks(self) -> Collection[tuple[int, int]]:
        """The (tensor, expert) ranks that it has."""


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
    notes: tuple[str, ...] = ()
    """What was passed over or should be known, one line each."""

    @property
    def dialect(self) -> Dialect:
        """Whose names its description has."""
        return dialect_of(self.options)

    @property
    def is_distributed(self) -> bool:
        """Whether its checkpoint has global tensors, and no ranks."""
        return self.options.ckpt_format == TORCH_DIST


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
    check_meant(asked, family, h)
    options = with_defaults(asked)
    dialect = dialect_of(options)
    dialect.check(options, h, family.parts(layers, h))
    h = pad_vocabulary(h, options.make_vocab_size_divisible_by, options.target_tensor_parallel_size or 1)
    selection = select_layers(layers, options)
    topology = dialect.topology(options, selection.decoder_count)
    description = describe(family, h, options, topology, selection, dialect)
    h = {**h, "mtp_num_layers": options.mtp_num_layers or 0}
    recorded = {**h, **of_kept_layers(h, family.model_type, selection.kept), **family.args(h, selection.kept)}
    notes = _shifted_layers(family, recorded, options, topology, selection)
    if dialect.IS_USUAL:
        notes += notes_on(asked, family.model_type.noted, family.model_type.name)
    notes += in_vain(asked, dialect)
    return Model(family, h, options, description, selection.kept, notes)


def in_vain(asked: Options, dialect: Dialect) -> tuple[str, ...]:
    """Say what was asked for that changes nothing of a checkpoint's tensors."""
    said = dialect.DISTRIBUTED.in_vain(asked) if dialect.DISTRIBUTED is not None else None
    return () if said is None else (said,)


def check_meant(asked: Options, family: Family, h: Hyperparameters) -> None:
    """Refuse options that mean nothing to a model, or that its dialect doesn't have.

    Raises:
        MscvtError: All of them at once.
    """
    faults, name, dialect = Faults(), family.model_type.name, dialect_of(asked)
    refused = family.model_type.refused
    if not dialect.IS_USUAL:  # the rest is said of the usual dialect's modules
        refused = {option: why for option, why in refused.items() if option == "dialect"}
    check_dialect(asked, dialect.NAME, faults)
    check_features(asked, family.features(family.layers(h), h), name, faults)
    check_refused(asked, refused, name, faults)
    faults.raise_if_any("options that mean nothing to this model")


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
    source: Existing,
    config: Mapping[str, Any] | None,
    request: Request,
    registry: Registry,
    *,
    against_original: bool = False,
) -> Model:
    """The model of a checkpoint, from its args and, where given, a `config.json`.

    Args:
        source: The checkpoint.
        config: The configuration, or None.
        request: What was asked for.
        registry: The plugins.
        against_original: Whether layers have their numbers in the model that the configuration is of, which may have
            more of them, or those that the way back gives.

    Raises:
        MscvtError: Where the checkpoint doesn't say enough, or what it says contradicts what was asked for.
    """
    args = source.args
    family = _family_of(args, config, request, registry)
    args = {**args, **{name: value for name, value in request.given.items() if args.get(name) is None}}
    asked, dialect, told = _recognised(recognise(args, source.some_shapes), source.ckpt_format, request.options)
    args, notes = dialect.in_our_words(args, model_fields(family.model_type))
    options, more = read_options(args, asked)
    if dialect.DISTRIBUTED is not None:
        options = replace(options, ckpt_format=source.ckpt_format)
    options = with_defaults(options)
    configured = None
    if config is not None:
        where = f"{request.hf_cfg_dir}/config.json"
        configured = hyperparameters(family.respelled(config), family.model_type, where)
    h = read_hyperparameters(args, family, options, configured)
    check_given(h, request.given, "the checkpoint")
    enumerated = configured if against_original and configured else h
    fewer = {
        name: h[name]
        for name in ("num_layers", "first_k_dense_replace")
        if name in h and h[name] < enumerated.get(name, h[name])
    }
    reduced = replace(options, **fewer)
    selection = select_layers(family.layers(enumerated), reduced)
    own = said_by_roles(family, h, selection.kept) | dict(family.args(h, selection.kept))
    check_meaning(args, own, family.features(selection.kept, h))
    dialect.check(options, h, family.parts(selection.kept, h))
    topology = dialect.topology(options, selection.decoder_count, source.ranks)
    description = describe(family, h, reduced, topology, selection, dialect, absent=absent_copies(args))
    return Model(family, h, options, description, selection.kept, (*told, *notes, *more))


def _recognised(found: Recognised, ckpt_format: str, asked: Options) -> tuple[Options, Dialect, tuple[str, ...]]:
    """What was asked for, with the dialect and version that a checkpoint is of, and what to say of these.

    Raises:
        MscvtError: Where another dialect was asked for.
    """
    if ckpt_format == TORCH_DIST and not found.why:
        found = Recognised(MEGATRON, None, "it is a distributed checkpoint")
    if asked.dialect not in (None, found.dialect):
        if found.why:
            raise MscvtError(
                f"--dialect {asked.dialect}: the checkpoint speaks {found.dialect}, because {found.why}",
                hint="Leave the option out: the dialect is recognised.",
            )
        found = Recognised(asked.dialect or "", None, "")
    version = found.version if asked.megatron_core_version is None else asked.megatron_core_version
    asked = replace(asked, dialect=found.dialect, megatron_core_version=version)
    dialect = dialect_of(asked)
    if dialect.IS_USUAL:
        return asked, dialect, ()
    in_format = f" in the format {ckpt_format}" if ckpt_format == TORCH_DIST else ""
    named = f", names of megatron-core {version}" if version and not in_format else ""
    said = f"recognised as {found.dialect}{in_format}{named}"
    return asked, dialect, (f"{said}, because {found.why}" if found.why else said,)


def _family_of(
    args: Mapping[str, Any], config: Mapping[str, Any] | None, request: Request, registry: Registry
) -> Family:
    recorded = read_model_type(args)
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
