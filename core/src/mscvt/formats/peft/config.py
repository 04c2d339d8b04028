"""`adapter_config.json`: what it says of the scale of an adapter, and what of it changes the meaning of the weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

from mscvt.errors import Faults, MscvtError
from mscvt.formats.files import file_inside
from mscvt.formats.json_files import read_json
from mscvt.formats.peft.names import CONFIG, MERGE
from mscvt.model.hyperparameters import shown_value
from mscvt.records import dataclass

_LIMIT = 16 << 20
"""Bytes; an adapter_config.json has some hundreds, and a line for each module that differs."""
_MOST_PATTERNS = 1 << 16
_HARMLESS = frozenset(
    {"peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "peft_version"}
    | {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "lora_dropout", "init_lora_weights"}
    | {"target_modules", "target_parameters", "exclude_modules", "layers_to_transform", "layers_pattern"}
    | {"modules_to_save", "megatron_config", "megatron_core", "qalora_group_size", "ensure_weight_tying"}
    | {"loftq_config", "eva_config", "runtime_config"}
)
"""What decides which modules are adapted and how they are trained, which the tensors themselves show, and the scale.
Whatever else is set adds something to plain LoRA."""
_INITIAL = (True, False, None, "gaussian", "eva", "orthogonal")
"""Initial values of factors which leave the weights of the model as they are published."""
_PATTERN = re.compile(r"(?:\\[.\dwd_-]|[\w.^$|()\[\]*+?:-])+")
_REPEATED_GROUP = re.compile(r"\)[*+?{]")
_MOST_REPEATS = 2


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The settings of an adapter."""

    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    """Regular expression that the end of a module's name matches -> its rank."""
    alpha_pattern: Mapping[str, float]
    use_rslora: bool
    """Whether the scale is alpha / sqrt(rank)."""
    saved: tuple[str, ...]
    """Modules that are said to be saved whole."""
    parameters: tuple[str, ...]
    """Parameters that are adapted as such, as experts that lie in one tensor."""
    version: tuple[int, ...]
    """The version of PEFT that wrote it; empty where it doesn't say."""

    def rank_of(self, module: str) -> int:
        """The rank of a module."""
        return next((rank for key, rank in self.rank_pattern.items() if _ends_with(key, module)), self.rank)

    def alpha_of(self, module: str) -> float:
        """The alpha of a module."""
        return next((alpha for key, alpha in self.alpha_pattern.items() if _ends_with(key, module)), self.alpha)

    def scale_of(self, module: str) -> float:
        """What the product of a module's factors is multiplied with."""
        rank = self.rank_of(module)
        return self.alpha_of(module) / (sqrt(rank) if self.use_rslora else rank)


def _ends_with(pattern: str, module: str) -> bool:
    """Whether a pattern is for a module: `get_pattern_key` of PEFT."""
    return re.match(rf"(.*\.)?({pattern})$", module) is not None


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Read the configuration of an adapter.

    Raises:
        MscvtError: Where it is none, says nothing that could be a scale, or sets what is not plain LoRA.
    """
    path = file_inside(folder, CONFIG, "the adapter's configuration")
    config = read_json(path, _LIMIT)
    if not isinstance(config, dict):
        raise MscvtError(f"{path}: holds {type(config).__name__}, expected an object")
    faults = Faults()
    if config.get("peft_type") != "LORA":
        faults.add(f"peft_type is {shown_value(config.get('peft_type'))}, and only LORA can be converted", hint=MERGE)
    for name, value in config.items():
        if name == "bias" and value in (None, "none"):
            continue
        if name not in _HARMLESS and value:
            faults.add(f"{name[:100]} is {shown_value(value)}, which plain LoRA doesn't have", hint=MERGE)
    initial = config.get("init_lora_weights")
    if not (isinstance(initial, (bool, str, type(None))) and initial in _INITIAL):
        faults.add(
            f"init_lora_weights is {shown_value(initial)}, which changes the weights that the factors are added to",
            hint="Convert the adapter with PEFT (path_initial_model_for_weight_conversion) to one of the published "
            "weights.",
        )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not _is_rank(rank):
        faults.add(f"r is {shown_value(rank)}, expected a whole number of at least 1")
    if not _is_number(alpha):
        faults.add(f"lora_alpha is {shown_value(alpha)}, expected a number")
    ranks = _pattern("rank_pattern", config, _is_rank, faults)
    alphas = _pattern("alpha_pattern", config, _is_number, faults)
    saved, parameters = (_words(name, config, faults) for name in ("modules_to_save", "target_parameters"))
    faults.raise_if_any(f"{path}: not an adapter that can be converted")
    version = re.match(r"(\d{1,6})\.(\d{1,6})", str(config.get("peft_version"))[:20])
    return AdapterConfig(
        rank,  # type: ignore[arg-type]  # faults were raised
        alpha,  # type: ignore[arg-type]
        ranks,
        alphas,
        bool(config.get("use_rslora")),
        saved,
        parameters,
        tuple(map(int, version.groups())) if version else (),
    )


def _is_rank(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 20


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9


def _pattern(name: str, config: Mapping[str, Any], fits: Any, faults: Faults) -> dict[str, Any]:
    """A pattern's entries; expressions that could take forever to match are refused."""
    found = config.get(name) or {}
    if not isinstance(found, dict) or len(found) > _MOST_PATTERNS or not all(map(fits, found.values())):
        faults.add(f"{name} is {shown_value(found)}, expected an object of numbers")
        return {}
    for key in found:
        repeats = sum(key.count(mark) for mark in "*+?{")
        try:
            is_plain = _PATTERN.fullmatch(key) and not _REPEATED_GROUP.search(key) and repeats <= _MOST_REPEATS
            re.compile(key)
        except re.error:
            is_plain = None
        if not is_plain:
            faults.add(f"{name} has {key[:100]!r}, expected the name of a module or a simple expression for some")
            return {}
    return found


def _words(name: str, config: Mapping[str, Any], faults: Faults) -> tuple[str, ...]:
    found: Sequence[Any] = config.get(name) or ()
    if not isinstance(found, list | tuple) or not all(isinstance(word, str) for word in found):
        faults.add(f"{name} is {shown_value(found)}, expected a list of names")
        return ()
    return tuple(found)
