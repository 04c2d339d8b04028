"""What Megatron-LM's `args` record in other words than ours."""

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
from mscvt.dialects.options import MEGATRON
from mscvt.model.fields import is_whole


def in_our_words(args: Mapping[str, Any], fields: Collection[str]) -> Recorded:
    """Translate what a checkpoint recorded.

    Args:
        args: What it recorded.
        fields: The hyperparameters that models of this type have.

    Raises:
        MscvtError: Where something is recorded that can't be said in our words.
    """
    found, notes = {**args, **implied(args)}, []
    experts = None
    if "num_experts" in fields:
        expert_width(found)
        shared_experts(found)
        _count_shared(found, fields)
        if (experts := _expert_layers(found)) is not None:
            say_expert_layers(found, fields, experts)
    else:
        notes += without_experts(found, MEGATRON)
    _virtual_stages(found)
    return Recorded(found, tuple(notes), experts)


def _count_shared(args: dict[str, Any], fields: Collection[str]) -> None:
    """The width of all shared experts together, as their number."""
    shared, width = args.get("moe_shared_expert_intermediate_size"), args.get("moe_ffn_hidden_size")
    if "n_shared_experts" in fields and args.get("n_shared_experts") is None and is_whole(shared) and is_whole(width):
        args["n_shared_experts"] = shared // width if width and shared % width == 0 else None


def _expert_layers(args: Mapping[str, Any]) -> Sequence[int] | None:
    """Whether each layer has experts, where that is recorded.

    Raises:
        MscvtError: Where it can't be understood.
    """
    pattern: Any = args.get("moe_layer_freq")
    layers: Any = args.get("num_layers")
    if pattern is None or not is_whole(layers):
        return None
    if is_whole(pattern) and pattern > 0:
        return [int(i % pattern == 0) for i in range(layers)]
    if not isinstance(pattern, (list, tuple)) or len(pattern) != layers:
        raise not_understood("moe_layer_freq", pattern)
    return pattern


def _virtual_stages(args: dict[str, Any]) -> None:
    """The number of virtual stages, where no option for it is recorded."""
    number: Any = args.get("virtual_pipeline_model_parallel_size")
    names = ("num_virtual_stages_per_pipeline_rank", "num_layers_per_virtual_pipeline_stage")
    if args.get("pipeline_model_parallel_layout") is not None:
        args |= dict.fromkeys(names)
    elif is_whole(number) and number > 1 and not any(args.get(name) for name in names):
        args[names[0]] = number
