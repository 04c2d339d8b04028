"""What a file says about a tensor before any of its bytes are read."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from types import MappingProxyType
from typing import NamedTuple

ITEM_SIZES: Mapping[str, int] = MappingProxyType(
    {
        "F64": 8,
        "F32": 4,
        "F16": 2,
        "BF16": 2,
        "I64": 8,
        "I32": 4,
        "I16": 2,
        "I8": 1,
        "U8": 1,
        "BOOL": 1,
        "F8_E4M3": 1,
        "F8_E5M2": 1,
        "F8_E8M0": 1,
    }
)
"""Bytes of one element by safetensors' name of the dtype."""

TORCH_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "F64": "float64",
        "F32": "float32",
        "F16": "float16",
        "BF16": "bfloat16",
        "I64": "int64",
        "I32": "int32",
        "I16": "int16",
        "I8": "int8",
        "U8": "uint8",
        "BOOL": "bool",
        "F8_E4M3": "float8_e4m3fn",
        "F8_E5M2": "float8_e5m2",
        "F8_E8M0": "float8_e8m0fnu",
    }
)
"""safetensors' name of a dtype -> torch's."""

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""What `--dtype` converts between."""


class TensorInfo(NamedTuple):
    """One tensor of a checkpoint: what it is and where its bytes lie."""

    dtype: str
    """safetensors' name, `BF16`."""
    shape: tuple[int, ...]
    file: int
    """Number of its file in the source's list."""
    offset: int
    """Bytes from the file's start."""

    @property
    def numel(self) -> int:
        """How many elements it has."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.numel * ITEM_SIZES[self.dtype]
