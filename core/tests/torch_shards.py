"""Shards laid out and filled, and the tensors in them."""

import mmap
import warnings
import zlib
from argparse import Namespace

import torch

from mscvt.formats.megatron_torch.writer import Allocator
from mscvt.parallel.grid import Rank
from mscvt.tensors.info import TORCH_NAMES

RANK = Rank(1, 0, 2)
ARGS = {
    "num_layers": 5,
    "norm_epsilon": 1e-6,
    "model_type_hf": "qwen3",
    "noop_layers": None,
    "swiglu": True,
    "list": [1, 2, 300, 70_000, 2**40],
    "empty": [],
    "zero": "0",
}
SHAPES = {"F32": (3, 5), "BF16": (7,), "F16": (2, 3, 4), "F8_E4M3": (5, 3), "I64": (), "BOOL": (9, 1), "U8": (0, 4)}


def tensors(dtypes=TORCH_NAMES):
    """A tensor of each dtype, with bytes of its own."""
    made = {}
    for number, name in enumerate(dtypes):
        dtype = getattr(torch, TORCH_NAMES[name])
        shape = SHAPES.get(name, (4, 3))
        count = torch.Size(shape).numel() * dtype.itemsize
        raw = torch.tensor(
            [(7 * at + number) % (2 if name == "BOOL" else 120) for at in range(count)], dtype=torch.uint8
        )
        made[f"decoder.layers.{number}.weight"] = (
            raw.view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)
        )
    return made


def plan(tensors, chunk="model"):
    names = {getattr(torch, torch_name): name for name, torch_name in TORCH_NAMES.items()}
    return {(RANK, chunk, key): (names[tensor.dtype], tuple(tensor.shape)) for key, tensor in tensors.items()}


def raw(tensor):
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


def fill(path, tensors, planned, chunks=("model",)):
    """Make a shard, with the tensors' bytes and their checksums."""
    allocator = Allocator(ARGS, 7)
    offsets = allocator.allocate(path, planned, chunks)
    with path.open("r+b") as file:
        for (_, _, key), offset in offsets.items():
            file.seek(offset)
            file.write(raw(tensors[key]))
    allocator.seal(path, planned, chunks, {name: zlib.crc32(raw(tensors[name[2]])) for name in planned})


def state_of(tensors):
    return {"args": Namespace(**ARGS), "checkpoint_version": 3.0, "iteration": 7, "model": tensors}


def write_shard(tmp_path):
    path, made = tmp_path / "model_optim_rng.pt", tensors()
    fill(path, made, plan(made))
    return path, made


def unbacked(count):
    """Bytes of any number that take no memory."""
    mapped = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.frombuffer(mapped, dtype=torch.uint8)
