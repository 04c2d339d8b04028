"""Small checkpoints whose every tensor has bytes of its own, made from names and shapes alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

_CARRIERS: Mapping[str, tuple[Any, Any, int]] = {
    "BF16": (np.uint16, torch.bfloat16, 0xBF7F),
    "F32": (np.uint32, torch.float32, 0xBF7FFFFF),
    "F8_E4M3": (np.uint8, torch.float8_e4m3fn, 0x77),
    "I64": (np.uint64, torch.int64, 0x7),
}
"""dtype -> an unsigned integer of its width, torch's type, and a mask that keeps values finite, or those of a
table small."""


def content(name: str, shape: Sequence[int], dtype: str = "BF16") -> torch.Tensor:
    """A tensor whose bytes follow from its name: PCG64 seeded with the first 8 bytes of sha256(name)."""
    carrier, torch_dtype, mask = _CARRIERS[dtype]
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    drawn = np.random.Generator(np.random.PCG64(seed)).integers(
        0, np.iinfo(carrier).max, size=prod(shape), dtype=carrier, endpoint=True
    ) & carrier(mask)
    return torch.from_numpy(drawn.view(f"i{drawn.itemsize}")).view(torch_dtype).reshape(tuple(shape))


def digest(tensor: torch.Tensor) -> str:
    """The first 16 hex digits of sha256 over a tensor's bytes in row-major order."""
    raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(raw).hexdigest()[:16]


def save_huggingface(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    *,
    shards: int = 1,
    ending: str = "safetensors",
) -> Path:
    """Write a Hugging Face checkpoint of so many files, `safetensors` or `bin`; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    stem = "model" if ending == "safetensors" else "pytorch_model"
    names, each = list(tensors), -(-len(tensors) // shards)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        part = {name: tensors[name] for name in names[number * each : (number + 1) * each]}
        file = f"{stem}.{ending}" if shards == 1 else f"{stem}-{number + 1:05d}-of-{shards:05d}.{ending}"
        if ending == "safetensors":
            save_file(part, folder / file, metadata={"format": "pt"})
        else:
            torch.save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    if shards > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder
