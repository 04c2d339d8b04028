"""What `args` record in other words than ours: the same facts under the names that other scripts and versions use."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mscvt.dialects.args_experts import (
    expert_width,
    not_understood,
    say_expert_layers,
    shared_experts,
    without_experts,
)
from mscvt.dialects.biases import implied
from mscvt.dialects.dialect import Recorded
from mscvt.dialects.options import MINDSPEED
from mscvt.errors import MscvtError
from mscvt.model.fields import is_whole

_VIRTUAL = ("virtual_pipeline_model_parallel_size", "num_virtual_stages_per_pipeline_rank", "vpp_size")
"""Names under which the number of a stage's virtual stages is recorded."""


def in_our_words(args: Mapping[str, Any], fields: Collection[str]) -> Recorded:
    """Translate what a checkpoint recorded.

    Args:
        args: What it recorded.
        fields: The hyperparameters that models of this type have.

    Raises:
        MscvtError: Where something is recorded that can't be said in our words.
    """
    found, notes = {**args, **implied(args)}, []
    has_experts = "num_experts" in fields
    if has_experts:
        expert_width(found)
    else:
        notes += without_experts(found, MINDSPEED)
    shared_experts(found)
    _layer_list(found)
    _virtual_stages(found)
    experts = _expert_layers(found) if has_experts else None
    if experts is not None:
        say_expert_layers(found, fields, experts)
    return Recorded(found, tuple(notes), experts)


def _layer_list(args: dict[str, Any]) -> None:
    """First and last stages of another length than the others, as a list of all stages."""
    first, last = args.get("decoder_first_pipeline_num_layers"), args.get("decoder_last_pipeline_num_layers")
    if (first is None and last is None) or args.get("num_layer_list") is not None:
        return
    layers, stages = args.get("num_layers", 0), args.get("pipeline_model_parallel_size", 1)
    ends = [[] if count is None else [count] for count in (first, last)]
    if not all(map(is_whole, (layers, stages, *ends[0], *ends[1]))):
        raise not_understood("decoder_first_pipeline_num_layers", first)
    others = stages - len(ends[0]) - len(ends[1])
    rest = layers - sum(ends[0]) - sum(ends[1])
    if others < 0 or rest < 0 or (rest % others if others else rest):
        raise MscvtError(
            f"the checkpoint's args record {layers} layers on {stages} stages, {first} on the first and {last} on the "
            "last: the others can't have equally many",
            hint="Is the file damaged? The args are those of the training run that saved it.",
        )
    middle = [rest // others] * others if others else []
    args["num_layer_list"] = [*ends[0], *middle, *ends[1]]


def _virtual_stages(args: dict[str, Any]) -> None:
    """The number of virtual stages, as the number of layers in each."""
    if args.get("num_layers_per_virtual_pipeline_stage") is not None:
        return
    name = next((name for name in _VIRTUAL if args.get(name) is not None), None)
    if name is None or args[name] == 1 or args.get("schedules_method") == "dualpipev":  # which has two chunks anyway
        return
    number, layers, stages = args[name], args.get("num_layers"), args.get("pipeline_model_parallel_size", 1)
    if not is_whole(number) or number < 1:
        raise not_understood(name, number)
    if not (is_whole(layers) and is_whole(stages)) or not 1 <= stages * number <= layers:
        return  # these are wrong by themselves, which is said elsewhere
    if args.get("num_layer_list") is not None or layers % (stages * number):
        raise MscvtError(
            f"the checkpoint's args record {number} virtual stages ({name}) for each of {stages} stages with {layers} "
            "layers, which are not all equally long",
            hint="Such a checkpoint can't be read; train with stages of equal length, or without virtual stages.",
        )
    args["num_layers_per_virtual_pipeline_stage"] = layers // (stages * number)


def _expert_layers(args: dict[str, Any]) -> Sequence[Any] | None:
    """Whether each layer has experts, where a list records it; a number may be text."""
    pattern = args.get("moe_layer_freq")
    if isinstance(pattern, str) and pattern.strip().isdigit():
        args["moe_layer_freq"] = int(pattern)
    return pattern if isinstance(pattern, (list, tuple)) else None
