"""What Megatron-LM's `args` record in other words than ours."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mscvt.dialects.args_experts import expert_width, not_understood, shared_experts, without_experts
from mscvt.dialects.biases import implied
from mscvt.dialects.dialect import Recorded
from mscvt.dialects.options import MEGATRON
from mscvt.errors import MscvtError
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
    if "num_experts" in fields:
        expert_width(found)
        shared_experts(found)
        _count_shared(found, fields)
        _expert_layers(found, fields)
    else:
        notes += without_experts(found, MEGATRON)
    _virtual_stages(found)
    return Recorded(found, tuple(notes))


def _count_shared(args: dict[str, Any], fields: Collection[str]) -> None:
    """The width of all shared experts together, as their number."""
    shared, width = args.get("moe_shared_expert_intermediate_size"), args.get("moe_ffn_hidden_size")
    if "n_shared_experts" in fields and args.get("n_shared_experts") is None and is_whole(shared) and is_whole(width):
        args["n_shared_experts"] = shared // width if width and shared % width == 0 else None


def _expert_layers(args: dict[str, Any], fields: Collection[str]) -> None:
    """Which layers have experts, as the fields of the model type say it.

    Raises:
        MscvtError: Where they can't.
    """
    pattern: Any = args.get("moe_layer_freq")
    layers: Any = args.get("num_layers")
    if pattern is None or not is_whole(layers):
        return
    if is_whole(pattern) and pattern > 0:
        pattern = [int(i % pattern == 0) for i in range(layers)]
    elif not isinstance(pattern, (list, tuple)) or len(pattern) != layers or not {0, 1} >= set(pattern):
        raise not_understood("moe_layer_freq", pattern)
    dense = [i for i, has_experts in enumerate(pattern) if not has_experts]
    said: dict[str, Any] | None = {} if not dense else None
    if "mlp_only_layers" in fields:
        said = {"mlp_only_layers": dense, "decoder_sparse_step": 1}
        if args.get("mlp_only_layers") is not None:  # mscvt's own record
            said = {}
    elif "first_k_dense_replace" in fields:
        said = _leading(pattern, "moe_layer_freq" in fields)
    if said is None:
        raise MscvtError(
            "the checkpoint's args record dense layers where the model type has none "
            f"(moe_layer_freq = {list(pattern)!r:.200})",
            hint="Is --model-type-hf the model's?",
        )
    args |= said


def _leading(pattern: Sequence[int], has_step: bool) -> dict[str, Any] | None:
    """So many dense layers, then every n-th with experts."""
    for step in range(1, len(pattern) + 1 if has_step else 2):
        first = max((i + 1 for i, value in enumerate(pattern) if not value and i % step == 0), default=0)
        if list(pattern) == [int(i >= first and i % step == 0) for i in range(len(pattern))]:
            return {"first_k_dense_replace": first, **({"moe_layer_freq": step} if has_step else {})}
    return None


def _virtual_stages(args: dict[str, Any]) -> None:
    """The number of virtual stages, where no option for it is recorded."""
    number: Any = args.get("virtual_pipeline_model_parallel_size")
    names = ("num_virtual_stages_per_pipeline_rank", "num_layers_per_virtual_pipeline_stage")
    if args.get("pipeline_model_parallel_layout") is not None:
        args |= dict.fromkeys(names)
    elif is_whole(number) and number > 1 and not any(args.get(name) for name in names):
        args[names[0]] = number
