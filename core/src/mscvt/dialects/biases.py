"""Biases of projections: which of them a stack that builds on megatron-core has together, and what `args` say of that.

Source: `add_bias_linear` and `add_qkv_bias` in megatron-core's transformer/attention.py, mlp.py and moe/.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from mscvt.errors import Faults

_OF_ATTENTION = ("attention.q", "attention.k", "attention.v", "attention.qkv")
_BIASED = (*_OF_ATTENTION, "attention.proj", "mla.proj", "mlp.gate", "mlp.up", "mlp.gate_up", "mlp.down")
"""Roles of the weights that get a bias where `add_bias_linear` holds."""
_IMPLIED = ("add_qkv_bias", "add_dense_bias")
"""What holds wherever `add_bias_linear` does, whatever is recorded."""

_HINT = "Training with modules of its own may have them: a plugin names them under roles of its own, with rules."


def check_biases(stack: str, parts: Collection[frozenset[str]], faults: Faults, *, apart: Iterable[str] = ()) -> None:
    """Refuse a model that has some of the biases which a stack has all together or not at all.

    Args:
        stack: What to call the stack.
        parts: The roles of each kind of layer.
        faults: Gathers what is refused.
        apart: Roles of weights whose bias the stack can have without the others, besides queries, keys and values.
    """
    roles = frozenset().union(*parts)
    telling = [f"{weight}_bias" for weight in _BIASED if weight not in {*_OF_ATTENTION, *apart}]
    given = [bias for bias in telling if bias in roles]
    if not given:
        return
    lacking = [
        f"{weight}_bias" for weight in _BIASED if any(weight in part and f"{weight}_bias" not in part for part in parts)
    ]
    is_dense = given == ["attention.proj_bias"]
    hint = "The dialect mindspeed can have that of attention alone." if is_dense else _HINT
    if lacking:
        faults.add(
            f"{stack} has biases of the MLP and of attention's projections in every layer or nowhere, and the model "
            f"has {', '.join(given)} and lacks {', '.join(lacking)}",
            hint=hint,
        )
    if "moe.router" in roles:
        faults.add(
            f"{stack} has biases of the MLP only together with some of the router and of the experts, for which there "
            f"are no roles, and the model has {', '.join(given)} and moe.router",
            hint=hint,
        )


def implied(args: Mapping[str, Any]) -> dict[str, bool]:
    """The settings that follow from `args` whatever these say of them: every projection's bias is attention's too."""
    return dict.fromkeys(_IMPLIED, True) if args.get("add_bias_linear") is True else {}
