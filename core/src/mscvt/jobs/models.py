"""The model that a request speaks of: from a `config.json` and options, or from what a checkpoint recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mscvt.description.description import Description, describe
from mscvt.dialects.dialect import Dialect
from mscvt.dialects.known import dialect_of
from mscvt.dialects.options import TORCH_DIST, Options
from mscvt.errors import Faults, MscvtError
from mscvt.model.family import Hyperparameters, Layer
from mscvt.model.hyperparameters import (
    check_given,
    hyperparameters,
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
from mscvt.records import dataclass


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
