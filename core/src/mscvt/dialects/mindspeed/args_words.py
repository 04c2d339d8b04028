"""What `args` record in other words than ours: the same facts under the names that other scripts and versions use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mscvt.dialects.mindspeed.options import Options
from mscvt.errors import MscvtError
from mscvt.model.fields import is_whole
from mscvt.model.hyperparameters import shown_value
from mscvt.model.options import rows

_VIRTUAL = ("virtual_pipeline_model_parallel_size", "num_virtual_stages_per_pipeline_rank", "vpp_size")
"""Names under which the number of a stage's virtual stages is recorded."""


class Recorded(NamedTuple):
    """`args` in our words."""

    args: Mapping[str, Any]
    notes: tuple[str, ...]
    """What was passed over, one line each."""


def in_our_words(args: Mapping[str, Any], *, has_experts: bool) -> Recorded:
    """Translate what a checkpoint recorded.

    Args:
        args: What it recorded.
        has_experts: Whether the family has experts at all.

    Raises:
        MscvtError: Where something is recorded that can't be said in our words.
    """
    found, notes = dict(args), []
    if not has_experts:
        notes += _without_experts(found)
    elif found.get("moe_intermediate_size") is None and found.get("moe_ffn_hidden_size") is None:
        # megatron/training/arguments.py: an expert is as wide as ffn_hidden_size where nothing else is said
        found["moe_intermediate_size"] = found.get("ffn_hidden_size")
    _shared_experts(found)
    _layer_list(found)
    _virtual_stages(found)
    if has_experts:
        _expert_layers(found)
    return Recorded(found, tuple(notes))


def _without_experts(args: dict[str, Any]) -> list[str]:
    """Forget options for experts, which scripts for all kinds of models set and which mean nothing to this one."""
    notes = []
    for row in rows(Options).values():
        if row.feature == "moe":
            for name in row.recorded:
                value = args.pop(name, None)
                if value is True or value not in (None, row.default, 1):
                    notes.append(f"args record {name}, which means nothing to a model without experts")
    return notes


def _shared_experts(args: dict[str, Any]) -> None:
    """The number of shared experts, as the width of all of them together."""
    number: Any = args.get("n_shared_experts")
    width: Any = args.get("moe_intermediate_size") or args.get("moe_ffn_hidden_size")
    if args.get("moe_shared_expert_intermediate_size") is None and is_whole(number) and is_whole(width):
        args["moe_shared_expert_intermediate_size"] = number * width


def _layer_list(args: dict[str, Any]) -> None:
    """First and last stages of another length than the others, as a list of all stages."""
    first, last = args.get("decoder_first_pipeline_num_layers"), args.get("decoder_last_pipeline_num_layers")
    if (first is None and last is None) or args.get("num_layer_list") is not None:
        return
    layers, stages = args.get("num_layers", 0), args.get("pipeline_model_parallel_size", 1)
    ends = [[] if count is None else [count] for count in (first, last)]
    if not all(map(is_whole, (layers, stages, *ends[0], *ends[1]))):
        raise _not_understood("decoder_first_pipeline_num_layers", first)
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
        raise _not_understood(name, number)
    if not (is_whole(layers) and is_whole(stages)) or not 1 <= stages * number <= layers:
        return  # these are wrong by themselves, which is said elsewhere
    if args.get("num_layer_list") is not None or layers % (stages * number):
        raise MscvtError(
            f"the checkpoint's args record {number} virtual stages ({name}) for each of {stages} stages with {layers} "
            "layers, which are not all equally long",
            hint="Such a checkpoint can't be read; train with stages of equal length, or without virtual stages.",
        )
    args["num_layers_per_virtual_pipeline_stage"] = layers // (stages * number)


def _expert_layers(args: dict[str, Any]) -> None:
    """A list of which layers have experts, as the number of dense ones before them."""
    pattern = args.get("moe_layer_freq")
    if isinstance(pattern, str) and pattern.strip().isdigit():
        args["moe_layer_freq"] = int(pattern)
    if not isinstance(pattern, (list, tuple)):
        return
    dense = next((i for i, has_experts in enumerate(pattern) if has_experts), len(pattern))
    if not all(value == 1 for value in pattern[dense:]):
        raise MscvtError(
            f"the checkpoint's args record dense layers behind those with experts (moe_layer_freq = {list(pattern)!r})",
            hint="Such a checkpoint can't be read; dense layers can only be the first ones.",
        )
    args["moe_layer_freq"] = 1
    if args.get("first_k_dense_replace") is None:
        args["first_k_dense_replace"] = dense


def _not_understood(name: str, value: Any) -> MscvtError:
    return MscvtError(
        f"the checkpoint's args record {name} = {shown_value(value)}, which can't be understood",
        hint="Is the file damaged? The args are those of the training run that saved it.",
    )
