"""Planning Megatron -> Megatron: another parallel layout of the same weights, without a detour over a disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mscvt.description.description import describe
from mscvt.dialects import mindspeed
from mscvt.dialects.mindspeed.options import Options
from mscvt.errors import Faults, MscvtError
from mscvt.jobs.models import Model, check_options, model_from_args
from mscvt.jobs.request import Request
from mscvt.model.hyperparameters import pad_vocabulary
from mscvt.model.layers import select_layers
from mscvt.model.options import check_features, check_refused, rows, with_defaults
from mscvt.plugins.registry import Registry


def models_of(args: Mapping[str, Any], request: Request, registry: Registry) -> tuple[Model, Model]:
    """The model as it is, and as it is wanted: what isn't asked for stays as the checkpoint has it.

    Args:
        args: What the checkpoint recorded.
        request: Its options are those of the target.
        registry: The plugins.

    Raises:
        MscvtError: Where the checkpoint doesn't say enough, or the options contradict it or one another.
    """
    check_options(request.options)
    source = model_from_args(args, None, replace(request, options=Options()), registry)
    options = _wanted(source.options, request, args)
    family, faults = source.family, Faults()
    layers = [layer for layer in source.kept if layer.mtp is None]
    every = family.layers(source.h)
    check_features(request.options, family.features(every, source.h), family.model_type.name, faults)
    check_refused(request.options, family.model_type.refused, family.model_type.name, faults)
    faults.raise_if_any("options that mean nothing to this model")
    mindspeed.check(options)
    h = source.h
    if options.make_vocab_size_divisible_by:
        h = pad_vocabulary(h, options.make_vocab_size_divisible_by, options.target_tensor_parallel_size or 1)
    elif "make_vocab_size_divisible_by" in request.removed:
        h = {**h, "padded_vocab_size": h["vocab_size"]}
    selection = select_layers(every, options)
    topology = mindspeed.topology(options, len(layers))
    absent = mindspeed.absent_copies(args)
    description = describe(family, h, options, topology, selection, mindspeed, absent=absent)
    h = {**h, "mtp_num_layers": options.mtp_num_layers or 0}
    return source, Model(family, h, options, description, selection.kept, len(layers), source.notes)


def absent_of(args: Mapping[str, Any], wanted: Model) -> list[str]:
    """Which tensors of the ends the original did not repeat, of those that the wanted model's MTP layers could.

    Args:
        args: What the source recorded; where that is nothing, it is what the family's checkpoints usually lack, so
            that the way back gives the same from both layouts.
        wanted: The model as it is wanted.
    """
    marks = {alias.mark for alias in wanted.description.aliases.values()}
    recorded = mindspeed.absent_copies(args)
    if recorded is None:
        recorded = () if wanted.family.model_type.repeats_ends else tuple(marks)
    return [mark for mark in recorded if mark in marks]


def _wanted(there: Options, request: Request, args: Mapping[str, Any]) -> Options:
    """The options of the target, with defaults."""
    asked = request.options
    for name in ("num_layers", "first_k_dense_replace"):
        if getattr(asked, name) is not None:
            raise MscvtError(
                f"{rows(Options)[name].flag} {getattr(asked, name)}: layers can't be left out on this way",
                hint="mscvt hf2mg takes a part of a model's layers.",
            )
    values = {}
    recorded = args.get("make_vocab_size_divisible_by")
    for name, row in rows(Options).items():
        wanted = getattr(asked, name)
        if name in request.removed:
            values[name] = row.default
        elif wanted is not None:
            values[name] = wanted
        elif name == "make_vocab_size_divisible_by":
            values[name] = recorded if type(recorded) is int and recorded > 0 else None
        elif row.same_as is not None and getattr(there, name) == getattr(there, row.same_as):
            values[name] = None
        else:
            values[name] = getattr(there, name)
    return with_defaults(Options(**values))
