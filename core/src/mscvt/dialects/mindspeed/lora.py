"""LoRA in a training run's checkpoint: which keys hold factors, and what `args` and the training script say of them.

PEFT wraps the modules that it adapts, so that `M.weight` becomes `M.base_layer.weight` beside `M.lora_A.default.weight`
and `M.lora_B.default.weight`; a module of grouped experts has parameters of its own beside its weights.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from mscvt.dialects.options import Options
from mscvt.errors import Faults
from mscvt.model.options import flag

IS_SPREAD = False
HAS_ONE_RANK = True
ALPHA_STANDS_IN = "the training script's --lora-alpha was the same number"

_GROUPED: Mapping[str, str] = MappingProxyType(
    {"mlp.experts.weight1": "linear_fc1", "mlp.experts.weight2": "linear_fc2"}
)
"""What the key of grouped experts ends with -> the module whose work it does."""
_FACTOR = re.compile(r"lora_", re.IGNORECASE)
_CASE = re.compile(r"\.lora_([ab])\.")
_NO_TARGETS = ("embedding.", ".router.", ".dsa_indexer.", ".gate_weight", "eh_proj.", "mtp.")
"""Parts of the keys of modules that training does not adapt."""


def factor_keys(key: str) -> tuple[str, str] | None:
    """The keys of A and B of the weight that has a key; None for what is no weight of a module."""
    if key.endswith(tuple(_GROUPED)):
        return f"{key}_lora_a", f"{key}_lora_b"
    module, dot, last = key.rpartition(".")
    if last != "weight" or not dot:
        return None
    return f"{module}.lora_A.default.weight", f"{module}.lora_B.default.weight"


def is_factor(key: str) -> bool:
    """Whether a key is one of an adapter's."""
    return _FACTOR.search(key) is not None


def part_key(key: str, role: str) -> None:
    """The key of a part of a fused weight: its tensors are adapted together."""


def is_halved(key: str) -> bool:  # noqa: ARG001
    """Whether a global tensor's rows are cut otherwise than those of its weight: there are no global tensors."""
    return False


def explained(key: str) -> str | None:
    """What a key of an adapter is, where it is known and can't be converted."""
    return "is of DoRA, which is not merged as plain LoRA is" if "magnitude" in key else None


def plain_key(key: str) -> str:
    """The key that a tensor of a wrapped module has without the wrapping, and a factor in the usual spelling."""
    return _CASE.sub(lambda found: f".lora_{found[1].upper()}.", key.replace(".base_layer.", "."))


def target_module(key: str) -> str:
    """What the training script's `--lora-target-modules` calls the module of a weight."""
    grouped = next((module for ending, module in _GROUPED.items() if key.endswith(ending)), None)
    return grouped or key.split(".")[-2]


def is_grouped(key: str) -> bool:
    """Whether a weight's factors are there whenever there are any, whatever is targeted."""
    return key.endswith(tuple(_GROUPED))


def can_be_trained(key: str) -> bool:
    """Whether the training can adapt the module of a weight."""
    return factor_keys(key) is not None and not any(part in f".{key}" for part in _NO_TARGETS)


def check(options: Options) -> None:
    """Refuse layouts in which the training does not take factors.

    Raises:
        MscvtError: All of them at once.
    """
    faults = Faults()
    for name in ("moe_tp_extend_ep", "mtp_num_layers"):
        if getattr(options, name):
            faults.add(f"{flag(name)}: training with LoRA refuses it", hint=f"Leave out {flag(name)}.")
    if options.transformer_impl == "transformer_engine":
        faults.add(
            f"{flag('transformer_impl')} transformer_engine: training with LoRA can't load weights under these names",
            hint=f"Leave out {flag('transformer_impl')}.",
        )
    faults.raise_if_any("factors can't be trained in this layout")


def args(rank: int, alpha: int, targets: Collection[str]) -> dict[str, Any]:
    """What `args` record of factors."""
    return {"lora_r": rank, "lora_alpha": alpha, "lora_target_modules": sorted(targets)}


def flags(rank: int, alpha: int, targets: Collection[str]) -> tuple[str, ...]:
    """What the training script must be told of factors, besides their folder."""
    return (
        f"--lora-r {rank}",
        f"--lora-alpha {alpha}",
        f"--lora-target-modules {' '.join(sorted(targets))}",
        "--finetune",
    )
