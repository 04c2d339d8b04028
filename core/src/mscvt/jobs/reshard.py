"""Planning Megatron -> Megatron: another parallel layout of the same weights, without a detour over a disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mscvt.description.description import describe
from mscvt.dialects.args_read import absent_copies
from mscvt.dialects.known import dialect_of
from mscvt.dialects.options import Options
from mscvt.errors import MscvtError
from mscvt.jobs.models import Model, check_meant, check_options, in_vain
from mscvt.jobs.recorded_models import Existing, model_from_args
from mscvt.jobs.request import Request
from mscvt.model.fields import is_whole
from mscvt.model.hyperparameters import pad_vocabulary
from mscvt.model.layers import select_layers
from mscvt.model.options import rows, rows_in, with_defaults
from mscvt.model.values import shown
from mscvt.plugins.registry import Registry


def models_of(there: Existing, request: Request, registry: Registry) -> tuple[Model, Model]:
    """The model as it is, and as it is wanted: what isn't asked for stays as the checkpoint has it.

    Args:
        there: The checkpoint.
        request: Its options are those of the target.
        registry: The plugins.

    Raises:
        MscvtError: Where the checkpoint doesn't say enough, or the options contradict it or one another.
    """
    check_options(request.options)
    given, more = _vocabulary(there.args)
    as_it_is = replace(request, options=Options(), given={**request.given, **given})
    source = model_from_args(there, None, as_it_is, registry)
    options = _wanted(source.options, request, there.args)
    try:
        return source, _wanted_model(there, source, options, request, more)
    except MscvtError as error:
        raise _with_what_stays(error, options, request) from None


def _wanted_model(there: Existing, source: Model, options: Options, request: Request, more: tuple[str, ...]) -> Model:
    """The model under the target's options, once they fit it and one another."""
    family, dialect = source.family, dialect_of(options)
    layers = [layer for layer in source.kept if layer.mtp is None]
    every = family.layers(source.h)
    check_meant(replace(request.options, dialect=options.dialect), family, source.h)
    dialect.check(options, source.h, family.parts(every, source.h))
    h = source.h
    if options.make_vocab_size_divisible_by:
        h = pad_vocabulary(h, options.make_vocab_size_divisible_by, options.target_tensor_parallel_size or 1)
    elif "make_vocab_size_divisible_by" in request.removed:
        h = {**h, "padded_vocab_size": h["vocab_size"]}
    selection = select_layers(every, options)
    topology = dialect.topology(options, len(layers))
    description = describe(family, h, options, topology, selection, dialect, absent=absent_copies(there.args))
    h = {**h, "mtp_num_layers": options.mtp_num_layers or 0}
    unused = in_vain(replace(request.options, ckpt_format=options.ckpt_format), dialect)
    notes = (*source.notes, *more, *_lost(source.options, options), *unused)
    return Model(family, h, options, description, selection.kept, notes)


def _with_what_stays(error: MscvtError, options: Options, request: Request) -> MscvtError:
    """An error about options, and of those that nobody gave now, how to be rid of them."""
    said = " ".join((error.message, *error.faults, error.hint or "")).split()
    away = [
        f"--no-{row.flag.removeprefix('--')}" if getattr(options, row.name) is True else f"{row.flag} none"
        for row in rows(Options).values()
        if getattr(options, row.name) not in (None, row.default)
        and getattr(request.options, row.name) is None
        and row.flag in {word.strip(".,:;") for word in said}
    ]
    if not away:
        return error
    hint = f"{error.hint or ''} What the source has is taken away by {' and '.join(away)}."
    return MscvtError(error.message, hint=hint.strip(), faults=error.faults)


def _vocabulary(args: Mapping[str, Any]) -> tuple[dict[str, int], tuple[str, ...]]:
    """The size of a vocabulary of which only the padded one is recorded, as training does, and what to say of it."""
    rows: Any = args.get("padded_vocab_size")
    if args.get("vocab_size") is not None or not is_whole(rows):
        return {}, ()
    said = f"the size of the vocabulary is not recorded, only that with padding: all {rows} rows are taken for it"
    return {"vocab_size": rows}, (said,)


def absent_of(args: Mapping[str, Any], wanted: Model) -> list[str]:
    """Which tensors of the ends the original did not repeat, of those that the wanted model's MTP layers could.

    Args:
        args: What the source recorded; where that is nothing, it is what the family's checkpoints usually lack, so
            that the way back gives the same from both layouts.
        wanted: The model as it is wanted.
    """
    marks = {alias.mark for alias in wanted.description.aliases.values()}
    recorded = absent_copies(args)
    if recorded is None:
        recorded = () if wanted.family.model_type.repeats_ends else tuple(marks)
    return [mark for mark in recorded if mark in marks]


def _lost(there: Options, wanted: Options) -> list[str]:
    """Say which options of the source the target's dialect doesn't have."""
    dialect = dialect_of(wanted).NAME
    lost = [
        f"{row.flag} {shown(getattr(there, row.name))}"
        for row in rows(Options).values()
        if row.dialects and dialect not in row.dialects and getattr(there, row.name) not in (None, row.default)
    ]
    return [f"{', '.join(lost)} of the source: is left out, {dialect} has no such option"] if lost else []


def _wanted(there: Options, request: Request, args: Mapping[str, Any]) -> Options:
    """The options of the target, with defaults."""
    asked = request.options
    for name in ("num_layers", "first_k_dense_replace"):
        if getattr(asked, name) is not None:
            raise MscvtError(
                f"{rows(Options)[name].flag} {getattr(asked, name)}: layers can't be left out on this way",
                hint="mscvt hf2mg takes a part of a model's layers.",
            )
    values: dict[str, Any] = {}
    recorded = args.get("make_vocab_size_divisible_by")
    dialect = asked.dialect or (None if "dialect" in request.removed else there.dialect)
    for name, row in rows_in(Options, dialect_of(Options(dialect=dialect)).NAME).items():
        wanted = getattr(asked, name)
        if name in request.removed:
            values[name] = None
        elif wanted is not None:
            values[name] = wanted
        elif name == "make_vocab_size_divisible_by":
            values[name] = recorded if type(recorded) is int and recorded > 0 else None
        elif row.same_as is not None and getattr(there, name) == getattr(there, row.same_as):
            values[name] = None
        else:
            values[name] = getattr(there, name)
    return with_defaults(Options(**values))
