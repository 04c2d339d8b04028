"""What can be asked for, as data that another process could be handed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from mscvt.dialects.options import Options
from mscvt.model.lora import Lora
from mscvt.records import dataclass

T = TypeVar("T")

DTYPES: Mapping[str, str] = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}
"""Values of `--dtype` -> safetensors' names."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks for, in either direction."""

    load_dir: Path
    options: Options
    model_type: str | None = None
    given: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Hyperparameter -> value, for sizes that a configuration or a checkpoint may leave unsaid."""
    dtype: str | None = None
    """A key of `DTYPES`, or None to keep each tensor's own."""
    dequantize: bool = False
    hf_cfg_dir: Path | None = None
    iteration: int | None = None
    removed: frozenset[str] = frozenset()
    """From Megatron to Megatron: options that the source has and the target shall not have."""
    replicas: str = "equal"
    """`equal`: what several ranks hold must be the same; `first`: the first rank's is wanted."""
    lora: Lora = field(default_factory=Lora)

    @property
    def dtype_name(self) -> str | None:
        """Safetensors' name of the dtype."""
        return None if self.dtype is None else DTYPES[self.dtype]

    def absolute(self) -> Request:
        """The same for a process that works in another folder."""
        return _absolute(self)


def _absolute(table: T) -> T:
    """A dataclass with all paths absolute, also those in dataclasses inside of it."""
    changed: dict[str, Any] = {}
    for entry in fields(table):  # type: ignore[arg-type]  # T is a dataclass
        value = getattr(table, entry.name)
        if isinstance(value, Path):
            changed[entry.name] = value.absolute()
        elif is_dataclass(value):
            changed[entry.name] = _absolute(value)
    return replace(table, **changed)  # type: ignore[type-var]  # T is a dataclass
