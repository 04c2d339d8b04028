"""Tensors in memory, as something to copy from."""

from __future__ import annotations

import torch

from mscvt.tensors.bits import PlainTensor
from mscvt.tensors.computing import as_bits
from mscvt.tensors.info import TORCH_NAMES


def in_memory(tensor: torch.Tensor) -> PlainTensor:
    """A tensor's elements in row-major order, as something to copy from; they share its memory where they lie so."""
    dtype = {name: dtype for dtype, name in TORCH_NAMES.items()}[str(tensor.dtype).removeprefix("torch.")]
    return PlainTensor(as_bits(tensor.contiguous().view(-1)), dtype)
