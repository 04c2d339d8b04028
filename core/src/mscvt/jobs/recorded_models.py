"""The model of a checkpoint, from what it recorded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from mscvt.description.description import Description, describe
from mscvt.dialects.args_experts import as_configured, check_expert_layers
from mscvt.dialects.args_meaning import check_meaning, said_by_roles
from mscvt.dialects.args_read import absent_copies, read_hyperparameters, read_model_type, read_options
from mscvt.dialects.known import Recognised, dialect_of, recognise
from mscvt.dialects.options import MEGATRON, TORCH_DIST, Options
from mscvt.errors import MscvtError
from mscvt.jobs.models import Model
from mscvt.jobs.request import Request
from mscvt.model.family import Hyperparameters
from mscvt.model.hyperparameters import check_given, hyperparameters, model_fields
from mscvt.model.layers import Selection, select_layers
from mscvt.model.options import with_defaults
from mscvt.parallel.topology import Topology
from mscvt.plugins.family import Family
from mscvt.plugins.registry import Registry


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
    asked, told = _recognised(recognise(args, source.some_shapes), source.ckpt_format, request.options)
    configured = None
    if config is not None:
        where = f"{request.hf_cfg_dir}/config.json"
        configured = hyperparameters(family.respelled(config), family.model_type, where)
    model = _recorded(family, args, asked, source.ckpt_format, source.ranks, configured, against_original)
    check_given(model.h, request.given, "the checkpoint")
    return replace(model, notes=(*told, *model.notes))


def check_read_back(model: Model, args: Mapping[str, Any]) -> None:
    """Refuse to write a checkpoint that could not be read back: what it records must describe the tensors it has.

    Args:
        model: The model as it is written.
        args: What is recorded of it.

    Raises:
        MscvtError: Where the args say another model, or none.
    """
    options, family = model.options, model.family
    asked = Options(dialect=options.dialect, megatron_core_version=options.megatron_core_version)
    try:
        read = _recorded(family, args, asked, options.ckpt_format, None, None, False)
    except MscvtError as error:
        raise _unreadable(family, error.message, error.faults) from None
    if differing := _differing(model.description, read.description):
        stage, chunk, key = differing[0]
        what = (
            f"they describe {len(differing)} tensors otherwise than they are, first {key} in {chunk} of stage {stage}"
        )
        raise _unreadable(family, what)


def _unreadable(family: Family, what: str, faults: Sequence[str] = ()) -> MscvtError:
    plugin = f"{family.plugin.distribution} {family.plugin.version}"
    return MscvtError(
        f"the args to be recorded could not be read back (plugin {plugin}): {what}",
        hint="This is a fault of the plugin, in its args, fields or mscvt_layers; report it to its authors.",
        faults=faults,
    )


def _differing(there: Description, read: Description) -> list[tuple[int, str, str]]:
    """The stages, chunks and keys of tensors that two descriptions don't have alike."""
    ours, theirs = (
        {(each.stage, each.chunk, each.key): each.layout for each in description.parameters}
        for description in (there, read)
    )
    alike: dict[tuple[int, int], bool] = {}  # layers of a kind share their layouts

    def differ(place: tuple[int, str, str]) -> bool:
        one, other = ours.get(place), theirs.get(place)
        if one is None or other is None:
            return True
        pair = id(one), id(other)
        if pair not in alike:
            alike[pair] = (one.left, one.right, one.cuts) == (other.left, other.right, other.cuts)
        return not alike[pair]

    return sorted(place for place in {**ours, **theirs} if differ(place))


def _recorded(
    family: Family,
    args: Mapping[str, Any],
    asked: Options,
    ckpt_format: str | None,
    ranks: Collection[tuple[int, int]] | None,
    configured: Hyperparameters | None,
    against_original: bool,
) -> Model:
    """The model that args record."""
    dialect = dialect_of(asked)
    args, notes, experts = dialect.in_our_words(args, model_fields(family.model_type))
    if experts is not None and configured is not None:
        args = {**args, **as_configured(experts, configured)}
    options, more = read_options(args, asked)
    if dialect.DISTRIBUTED is not None:
        options = replace(options, ckpt_format=ckpt_format)
    options = with_defaults(options)
    h = read_hyperparameters(args, family, options, configured)
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
    topology = dialect.topology(options, selection.decoder_count, ranks)
    if experts is not None:
        _check_experts(family, h, topology, selection, experts)
    description = describe(family, h, reduced, topology, selection, dialect, absent=absent_copies(args))
    return Model(family, h, options, description, selection.kept, (*notes, *more))


def _check_experts(
    family: Family, h: Hyperparameters, topology: Topology, selection: Selection, recorded: Sequence[Any]
) -> None:
    """Compare which layers have experts with what was recorded of slots, or of layers alone.

    Raises:
        MscvtError: Where they differ.
    """
    layers = [layer for layer in selection.kept if layer.mtp is None]
    if len(recorded) == len(layers) + len(topology.noop):
        recorded = [entry for slot, entry in enumerate(recorded) if slot not in topology.noop]
    routed = {layer.kind: "moe.router" in family.roles((layer,), h) for layer in layers}
    check_expert_layers(recorded, [routed[layer.kind] for layer in layers])


def _recognised(found: Recognised, ckpt_format: str, asked: Options) -> tuple[Options, tuple[str, ...]]:
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
    if dialect_of(asked).IS_USUAL:
        return asked, ()
    in_format = f" in the format {ckpt_format}" if ckpt_format == TORCH_DIST else ""
    named = f", names of megatron-core {version}" if version and not in_format else ""
    said = f"recognised as {found.dialect}{in_format}{named}"
    return asked, (f"{said}, because {found.why}" if found.why else said,)


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
