"""Conversions as a test wants them: from folder to folder, and what is in the result."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from mscvt.dialects.options import Options
from mscvt.dialects.registry import load_registry
from mscvt.jobs.conversion import Conversion, Settings, run_conversion
from mscvt.jobs.prepare import prepare_to_huggingface, prepare_to_megatron
from mscvt.jobs.request import Request
from mscvt.plugins.registry import Registry
from mscvt.testing.checkpoints import digest


def hf2mg(
    hf: Path,
    mg: Path,
    options: Options | None = None,
    *,
    dtype: str | None = None,
    registry: Registry | None = None,
) -> Conversion:
    """Convert a Hugging Face checkpoint; returns what was planned.

    Raises:
        MscvtError: Where `mscvt hf2mg` would end with one.
    """
    conversion = prepare_to_megatron(Request(hf, options or Options(), dtype=dtype), registry or load_registry())
    run_conversion(conversion, mg, Settings())
    return conversion


def mg2hf(mg: Path, back: Path, *, hf_cfg_dir: Path | None = None, registry: Registry | None = None) -> Conversion:
    """Convert a Megatron checkpoint back without any flag; returns what was planned.

    Raises:
        MscvtError: Where `mscvt mg2hf` would end with one.
    """
    request = Request(mg, Options(), hf_cfg_dir=hf_cfg_dir)
    conversion = prepare_to_huggingface(request, registry or load_registry())
    run_conversion(conversion, back, Settings())
    return conversion


def shards_in(mg: Path) -> dict[str, dict[str, Any]]:
    """Rank folder (`mp_rank_00_001`) -> everything in its file, read by torch itself."""
    with torch.serialization.safe_globals([Namespace]):
        return {
            path.parent.name: torch.load(path, weights_only=True) for path in sorted(mg.glob("*/*/model_optim_rng.pt"))
        }


def contents_in(hf: Path) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """Name -> dtype, shape and digest of every tensor of a Hugging Face checkpoint, read by safetensors itself."""
    found: dict[str, tuple[str, tuple[int, ...], str]] = {}
    for path in sorted(hf.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {name: content_of(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    return found


def content_of(tensor: torch.Tensor) -> tuple[str, tuple[int, ...], str]:
    """Dtype, shape and digest of a tensor."""
    return str(tensor.dtype), tuple(tensor.shape), digest(tensor)
