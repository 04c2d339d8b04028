"""What `args` record of experts in other words than ours."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mscvt.dialects.options import Options
from mscvt.errors import MscvtError
from mscvt.model.fields import is_whole
from mscvt.model.hyperparameters import shown_value
from mscvt.model.options import rows, rows_in


def expert_width(args: dict[str, Any]) -> None:
    """An expert is as wide as `ffn_hidden_size` where nothing else is said (megatron/training/arguments.py)."""
    if args.get("moe_intermediate_size") is None and args.get("moe_ffn_hidden_size") is None:
        args["moe_intermediate_size"] = args.get("ffn_hidden_size")


def without_experts(args: dict[str, Any], dialect: str) -> list[str]:
    """Forget options for experts, which scripts for all kinds of models set and which mean nothing to this one."""
    notes = []
    for row in rows_in(Options, dialect).values():
        if row.feature == "moe":
            for name in row.recorded:
                value = args.pop(name, None)
                if row.same_as is not None and value == args.get(rows(Options)[row.same_as].recorded[0]):
                    continue
                if value is True or value not in (None, row.default, 1):
                    notes.append(f"args record {name}, which means nothing to a model without experts")
    return notes


def shared_experts(args: dict[str, Any]) -> None:
    """The number of shared experts, as the width of all of them together, and the other way round."""
    number: Any = args.get("n_shared_experts")
    width: Any = args.get("moe_intermediate_size") or args.get("moe_ffn_hidden_size")
    shared: Any = args.get("moe_shared_expert_intermediate_size")
    if shared is None and is_whole(number) and is_whole(width):
        args["moe_shared_expert_intermediate_size"] = number * width
    elif number is None and is_whole(shared) and is_whole(width) and width and not shared % width:
        args["n_shared_experts"] = shared // width


def say_expert_layers(args: dict[str, Any], fields: Collection[str], pattern: Sequence[Any]) -> None:
    """Say which layers have experts by the fields of the model type, where it has such; others enumerate layers.

    Args:
        args: What the checkpoint recorded; is changed.
        fields: The hyperparameters that models of this type have.
        pattern: Whether each layer has experts.

    Raises:
        MscvtError: Where the fields can't say it, or nobody could.
    """
    if not set(pattern) <= {0, 1}:
        raise not_understood("moe_layer_freq", pattern)
    if "mlp_only_layers" in fields:
        if args.get("mlp_only_layers") is None:  # as mscvt records it
            dense = [i for i, has_experts in enumerate(pattern) if not has_experts]
            args |= {"mlp_only_layers": dense, "decoder_sparse_step": 1}
    elif "first_k_dense_replace" in fields:
        said = _leading(pattern, args.get("first_k_dense_replace"), "moe_layer_freq" in fields)
        if said is None:
            raise _in_other_layers(pattern)
        args |= said


def as_configured(pattern: Sequence[Any], configured: Mapping[str, Any]) -> dict[str, int]:
    """What a configuration says of the layers that have experts, where it says this pattern.

    Several numbers may say the same layers: of three, the last one alone is every layer from the third on as well as
    every second one from the second on.
    """
    said = {name: configured[name] for name in ("first_k_dense_replace", "moe_layer_freq") if name in configured}
    first, step = said.get("first_k_dense_replace", 0), said.get("moe_layer_freq", 1)
    return said if list(pattern) == _spread(len(pattern), first, step) else {}


def check_expert_layers(recorded: Sequence[Any], has_experts: Sequence[bool]) -> None:
    """Compare a pattern that a checkpoint recorded with the layers of its model.

    Raises:
        MscvtError: Where they differ.
    """
    if list(map(bool, recorded)) != list(has_experts):
        raise _in_other_layers(recorded)


def _in_other_layers(pattern: Sequence[Any]) -> MscvtError:
    return MscvtError(
        "the checkpoint's args record experts in other layers than models of this type have them in "
        f"(moe_layer_freq = {list(pattern)!r:.200})",
        hint="Is --model-type-hf the model's?",
    )


def _leading(pattern: Sequence[int], recorded: Any, has_step: bool) -> dict[str, int] | None:
    """So many dense layers, which may be recorded, then every n-th with experts."""
    for step in range(1, len(pattern) + 1 if has_step else 2):
        first = max((i + 1 for i, value in enumerate(pattern) if not value and i % step == 0), default=0)
        if is_whole(recorded):
            first = recorded
        if list(pattern) == _spread(len(pattern), first, step):
            return {"first_k_dense_replace": first, "moe_layer_freq": step}
    return None


def _spread(layers: int, first: int, step: int) -> list[int]:
    return [int(layer >= first and layer % step == 0) for layer in range(layers)]


def not_understood(name: str, value: Any) -> MscvtError:
    """Something is recorded that has no meaning."""
    return MscvtError(
        f"the checkpoint's args record {name} = {shown_value(value)}, which can't be understood",
        hint="Is the file damaged? The args are those of the training run that saved it.",
    )
