"""Tensors of every kind, files of torch.save with them, and what is read of those."""

import torch

from mscvt.formats.torch_zip.reader import tensors_in
from mscvt.tensors.info import TORCH_NAMES

BASE = torch.arange(40, dtype=torch.float32)
TENSORS = {
    "view": BASE[5:11].view(2, 3),
    "whole": BASE,
    "one": BASE[3],
    "none": torch.empty(0, 4),
    "parameter": torch.nn.Parameter(torch.ones(2, 3)),
    "buffer": torch.nn.Buffer(torch.full((3,), 7.0)),
    "last_size_is_one": torch.arange(6.0).view(6, 1).as_strided((6, 1), (1, 99)),
    "nan": torch.tensor([0x7F81, 0x7FC0, -1, -127], dtype=torch.int16).view(torch.bfloat16),
    **{name: torch.arange(6).to(getattr(torch, torch_name)).view(3, 2) for name, torch_name in TORCH_NAMES.items()},
}


def raw(tensor):
    return bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())


def read(path, state, where="state"):
    """Every tensor's dtype, shape and bytes."""
    content = path.read_bytes()
    return {
        name: (info.dtype, info.shape, content[info.offset : info.offset + info.nbytes])
        for name, info in tensors_in(path, 0, state, where)
    }


def expected(tensors):
    names = {getattr(torch, torch_name): name for name, torch_name in TORCH_NAMES.items()}
    return {name: (names[tensor.dtype], tuple(tensor.shape), raw(tensor)) for name, tensor in tensors.items()}


def save(path, state, **options):
    torch.save(state, path, **options)
    return path
