"""Writing an adapter's configuration, for `PeftModel.from_pretrained`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mscvt.formats.peft.names import CONFIG, PREFIX, A

_EXPERT = re.compile(r"\.experts\.\d+\.")
LOADED_BY = "PEFT 0.21 with transformers 5"
"""What was seen to load experts one by one."""


def adapter_config(
    shapes: Mapping[str, tuple[int, ...]], scales: Mapping[str, float], rank: int, alpha: float, base: str | None
) -> tuple[dict[str, Any], list[str]]:
    """The configuration of an adapter.

    Args:
        shapes: Name -> shape of every tensor in its file.
        scales: Name of an A -> what the product of its module's factors is multiplied with.
        rank: The rank of most modules.
        alpha: Their alpha.
        base: The name of the model, where it is known.

    Returns:
        The configuration, and notes on what loads it.
    """
    leaves: dict[str, dict[str, tuple[int, float]]] = {}
    for name, (own, *_) in shapes.items():
        if name.endswith(A):
            module = name[len(PREFIX) : -len(A)]
            leaves.setdefault(module.rpartition(".")[2], {})[module] = own, scales[name] * own
    others: dict[str, tuple[int, float]] = {}
    for leaf, modules in leaves.items():
        said = {leaf: next(iter(modules.values()))} if len(set(modules.values())) == 1 else modules
        others |= {re.escape(name): own for name, own in said.items() if own != (rank, alpha)}
    config = {
        "alpha_pattern": {name: _number(own) for name, (_, own) in others.items()},
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": _number(alpha),
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {name: own for name, (own, _) in others.items()},
        "target_modules": sorted(leaves),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    return config, list(_expert_notes(leaves))


def _expert_notes(leaves: Mapping[str, Mapping[str, object]]) -> list[str]:
    of_experts = {leaf for leaf, modules in leaves.items() if any(map(_EXPERT.search, modules))}
    if not of_experts:
        return []
    notes = [f"experts have a pair of factors each, as {LOADED_BY} loads them"]
    if lost := sorted(m for leaf in of_experts for m in leaves[leaf] if not _EXPERT.search(m)):
        notes.append(
            f"{LOADED_BY} drops the factors of {len(lost)} modules named as those of experts, such as {lost[0]} "
            "(huggingface/peft#3711); without --save-lora-to-hf they are merged, and nothing is lost"
        )
    return notes


def _number(value: float) -> float:
    return int(value) if value == int(value) else value


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write `adapter_config.json`."""
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
