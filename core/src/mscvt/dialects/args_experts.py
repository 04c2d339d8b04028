"""What `args` record of experts in other words than ours."""

from __future__ import annotations

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


def not_understood(name: str, value: Any) -> MscvtError:
    """Something is recorded that has no meaning."""
    return MscvtError(
        f"the checkpoint's args record {name} = {shown_value(value)}, which can't be understood",
        hint="Is the file damaged? The args are those of the training run that saved it.",
    )
