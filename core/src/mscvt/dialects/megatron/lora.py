"""LoRA of Megatron-Bridge: `M.adapter.linear_in.weight` (A) and `M.adapter.linear_out.weight` (B) beside `M.weight`.

Every factor is cut over the tensor-parallel ranks: what the weight's own cut leaves whole, by its first dimension.
Source: megatron/bridge/peft/utils.py, ParallelLinearAdapter.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from mscvt.errors import MscvtError

IS_SPREAD = True


def factor_keys(key: str) -> tuple[str, str] | None:
    """The keys of A and B of the weight that has a key; None for what is no weight of a module."""
    module, dot, last = key.rpartition(".")
    if last != "weight" or not dot:
        return None
    return f"{module}.adapter.linear_in.weight", f"{module}.adapter.linear_out.weight"


def is_factor(key: str) -> bool:
    """Whether a key is one of an adapter's."""
    return ".adapter." in key


def plain_key(key: str) -> str:
    """The key itself: a wrapped module keeps the keys of its weights."""
    return key


def target_module(key: str) -> str:
    """What `target_modules` calls the module of a weight."""
    return key.split(".")[-2]


def is_grouped(key: str) -> bool:  # noqa: ARG001  # experts have factors where they are targeted
    """Whether a weight's factors are there whenever there are any, whatever is targeted."""
    return False


def can_be_trained(key: str) -> bool:
    """Whether the training can adapt the module of a weight."""
    return factor_keys(key) is not None


def check(options: Any) -> None:  # noqa: ARG001  # whatever they are
    """Refuse to write factors, which Megatron-Bridge keeps in distributed checkpoints alone.

    Raises:
        MscvtError: Always.
    """
    raise MscvtError(
        "factors of LoRA can't be written for Megatron-Bridge",
        hint="Without --save-lora-to-mg the adapter is merged. Megatron-Bridge itself loads adapters of PEFT.",
    )


def args(rank: int, alpha: int, targets: Collection[str]) -> dict[str, Any]:  # noqa: ARG001
    """What `args` record of factors: nothing, they are in the run's own configuration."""
    return {}


def flags(rank: int, alpha: int, targets: Collection[str]) -> tuple[str, ...]:  # noqa: ARG001
    """What the training script must be told of factors, besides their folder."""
    return ()
