"""Allocating a Megatron checkpoint: files of torch.save with room for their tensors, and the tracker."""

from __future__ import annotations

import mmap
import warnings
from argparse import Namespace
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch

from mscvt.formats.megatron_torch.paths import TRACKER
from mscvt.formats.torch_zip.reader import load, tensors_in
from mscvt.plan.contents import Name
from mscvt.tensors.info import TORCH_NAMES

CHECKPOINT_VERSION = 3.0


def allocate(
    path: Path,
    tensors: Mapping[Name, tuple[str, tuple[int, ...]]],
    args: Mapping[str, Any],
    parts: Sequence[str],
    iteration: int,
) -> dict[Name, int]:
    """Write a rank's file without the bytes of its tensors; the space for them is left empty.

    Args:
        path: The file.
        tensors: (rank, part, key) -> (dtype, shape).
        args: What the checkpoint records.
        parts: All parts of the rank, also those without tensors.
        iteration: The iteration to record.

    Returns:
        The offset of each tensor from the file's start, in bytes.
    """
    state: dict[str, Any] = {
        "args": Namespace(**args),
        "checkpoint_version": CHECKPOINT_VERSION,
        "iteration": iteration,
    }
    state |= {part: {} for part in parts}
    for (_, part, key), (dtype, shape) in tensors.items():
        state[part][key] = _unbacked(shape, getattr(torch, TORCH_NAMES[dtype]))
    with torch.serialization.skip_data():
        torch.save(state, path)
    return offsets_in(path, tensors)


def _unbacked(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor of any size that takes no memory: a private read-only mapping is not even reserved.

    FakeTensorMode would do too, but importing it takes a second.
    """
    nbytes = prod(shape) * dtype.itemsize
    if nbytes == 0:
        return torch.empty(shape, dtype=dtype)
    mapped = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns that the buffer can't be written
        return torch.frombuffer(mapped, dtype=dtype).view(shape)


def offsets_in(path: Path, tensors: Mapping[Name, Any]) -> dict[Name, int]:
    """Where the tensors of an allocated file are."""
    state = load(path)
    found: dict[tuple[str, str], int] = {}
    for part in {part for _, part, _ in tensors}:
        for key, info in tensors_in(path, 0, state[part], part):
            found[part, key] = info.offset
    return {name: found[name[1], name[2]] for name in tensors}


def write_tracker(folder: Path, iteration: int) -> None:
    """Name the iteration that training starts from."""
    (folder / TRACKER).write_text(str(iteration), encoding="utf-8")
