"""LoRA of Megatron-Bridge: `M.adapter.linear_in.weight` (A) and `M.adapter.linear_out.weight` (B) beside `M.weight`.

Every factor is cut over the tensor-parallel ranks: what the weight's own cut leaves whole, by its first dimension.
Source: megatron/bridge/peft/utils.py, ParallelLinearAdapter. Where tensors of a fused weight have adapters of their
own, they are `M.adapter.adapter_q.linear_in.weight` and so on (canonical_lora.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from types import MappingProxyType
from typing import Any

from mscvt.errors import MscvtError

IS_SPREAD = True
HAS_ONE_RANK = False
ALPHA_STANDS_IN = "run_config.yaml, in the checkpoint's folder, has it as alpha under peft"
_APART = MappingProxyType({part: f"adapter_{part}" for part in ("q", "k", "v", "gate", "up")})
"""How roles end -> the adapter of its own that a tensor of a fused weight may have."""
_HALVED = re.compile(r".*\.adapter_(?:gate|up)\.linear_out\.weight")
_KNOWN = (
    (r"\.adapters\.\d+\.", "is one of several adapters of a module, of which each request chooses one"),
    (r"weight_magnitude", "is of DoRA, which is not merged as plain LoRA is"),
    (
        r"\.adapter\.adapter_\w+\.",
        "is of one tensor of a fused weight, which is read from torch_dist checkpoints alone",
    ),
    (r"\.experts\.linear_fc[12]\.", "is of grouped experts, which is read from torch_dist checkpoints alone"),
    (r"\.router\.adapter\.", "is of a router, whose weight this model has under another key"),
    (r"^(?:vision|audio|llava)_\w*\.", "is of a part of the model that is no language model"),
)
"""What keys hold -> what they are."""


def factor_keys(key: str) -> tuple[str, str] | None:
    """The keys of A and B of the weight that has a key; None for what is no weight of a module."""
    module, dot, last = key.rpartition(".")
    if last != "weight" or not dot:
        return None
    if ".adapter." in module:
        return f"{module}.linear_in.weight", f"{module}.linear_out.weight"
    return f"{module}.adapter.linear_in.weight", f"{module}.adapter.linear_out.weight"


def is_factor(key: str) -> bool:
    """Whether a key is one of an adapter's."""
    return ".adapter." in key or ".adapters." in key


def part_key(key: str, role: str) -> str | None:
    """The key that one of the tensors of a fused weight would have, if training adapts each of them apart."""
    part = _APART.get(role.rpartition(".")[2])
    return f"{key.removesuffix('.weight')}.adapter.{part}.weight" if part and key.endswith(".weight") else None


def is_halved(key: str) -> bool:
    """Whether a global tensor's rows are cut as those of a gate with its up projection, though it is only one of them.

    Each tensor rank's rows are saved as halves, all first ones before all second ones: `split_swiglu` there.
    """
    return _HALVED.fullmatch(key) is not None


def explained(key: str) -> str | None:
    """What a key of an adapter is, where it is known and can't be converted."""
    return next((what for pattern, what in _KNOWN if re.search(pattern, key)), None)


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
