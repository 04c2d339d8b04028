"""What can be asked for, as data that another process could be handed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mscvt.dialects.options import Options
from mscvt.model.lora import Lora

DTYPES: Mapping[str, str] = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}
"""Values of `--dtype` -> safetensors' names."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks for, in either direction."""

    load_dir: Path
    options: Options
    model_type: str | None = None
    given: Mapping[str, int] = field(default_factory=dict)
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
