"""The golden cases: small models, options, and the exact tensors that both directions must give."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from mscvt.testing import content, digest, save_huggingface

CASES = Path(__file__).parent / "golden"
_DTYPES = {"bf16": "BF16", "f32": "F32", "f8_e4m3": "F8_E4M3", "i64": "I64"}
_SHORT = {torch.bfloat16: "bf16", torch.float32: "f32", torch.int64: "torch.int64"}


def load_case(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def build_source(case: dict[str, Any], folder: Path) -> Path:
    """Write the case's Hugging Face checkpoint."""
    hf = case["hf"]
    tensors = {
        name: content(shared[0] if shared else name, shape, _DTYPES[dtype])
        for name, (shape, dtype, *shared) in hf["tensors"].items()
    }
    return save_huggingface(folder, hf["config"], tensors, shards=hf["shards"], ending=hf["format"])


def megatron_digests(folder: Path) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """Path -> part -> key -> [shape, dtype, digest] of everything in a Megatron checkpoint."""
    found = {}
    with torch.serialization.safe_globals([Namespace]):
        for path in sorted(folder.rglob("*.pt")):
            state = torch.load(path, weights_only=True)
            found[str(path.relative_to(folder))] = {
                part: {key: [list(t.shape), _SHORT[t.dtype], digest(t)] for key, t in state[part].items()}
                for part in state
                if part.startswith("model")
            }
    return found


def huggingface_digests(folder: Path) -> dict[str, str]:
    """Name -> digest of everything in a Hugging Face checkpoint."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {name: digest(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    return found
