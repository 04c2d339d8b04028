"""Biases of projections: which of them a stack that builds on megatron-core has together, and what `args` say of that.

Source: `add_bias_linear` and `add_qkv_bias` in megatron-core's transformer/attention.py, mlp.py and moe/.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mscvt.errors import Faults

_TELLING = ("attention.proj", "mla.proj", "mlp.gate", "mlp.up", "mlp.gate_up", "mlp.down")
"""Roles of weights that have a bias only where `add_bias_linear` holds."""
_OTHERS = (
    *("attention.q", "attention.k", "attention.v", "attention.qkv"),
    *("moe.expert.gate", "moe.expert.up", "moe.expert.gate_up", "moe.expert.down"),
)
"""Roles of weights that have one there too; the biases of some of these are no roles of the core's."""
_IMPLIED = ("add_qkv_bias", "add_dense_bias")
"""What holds wherever `add_bias_linear` does, whatever is recorded."""
_HINT = "Training with modules of its own may have them: a plugin names them under roles of its own, with rules."


def check_biases(stack: str, parts: Collection[frozenset[str]], faults: Faults, *, apart: Collection[str] = ()) -> None:
    """Refuse a model that has some of the biases which a stack has all together or not at all.

    Args:
        stack: What to call the stack.
        parts: The roles of each kind of layer.
        faults: Gathers what is refused.
        apart: Roles of weights whose bias the stack can have without the others, besides queries, keys and values.
    """
    roles = frozenset().union(*parts)
    given = [f"{weight}_bias" for weight in _TELLING if weight not in apart and f"{weight}_bias" in roles]
    if not given:
        return
    is_dense = given == ["attention.proj_bias"]
    hint = "The dialect mindspeed can have that of attention alone." if is_dense else _HINT
    lacking = [
        f"{weight}_bias"
        for weight in (*_OTHERS, *_TELLING)
        if any(weight in part and f"{weight}_bias" not in part for part in parts)
    ]
    if lacking:
        faults.add(
            f"{stack} has biases of attention's projections, of MLPs and of experts all together or not at all, and "
            f"the model has {', '.join(given)} and lacks {', '.join(lacking)}",
            hint=hint,
        )
    if any(role.startswith("moe.shared.") for role in roles):
        faults.add(
            f"{stack} has no biases in models with shared experts, and the model has {', '.join(given)}", hint=hint
        )


def implied(args: Mapping[str, Any]) -> dict[str, bool]:
    """The settings that follow from `args` whatever these say of them: every projection's bias is attention's too."""
    return dict.fromkeys(_IMPLIED, True) if args.get("add_bias_linear") is True else {}
