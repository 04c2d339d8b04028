"""Hugging Face checkpoints to measure with: with random weights, or with headers and nothing behind them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

import numpy as np

from models import Model, Shape
from mscvt.formats.huggingface.safetensors_header import make_header

_POOL = (1 << 24) + 43
"""Random elements that are drawn; a prime length, so that no two tensors begin at the same place of the pool."""
_FINITE = 0xBF7F
"""Leaves a bf16 finite."""
INDEX = "model.safetensors.index.json"


def shards(tensors: Mapping[str, Shape], limit: int) -> Iterator[dict[str, Shape]]:
    """Tensors in order, in groups of at most so many bytes of bf16."""
    group: dict[str, Shape] = {}
    filled = 0
    for name, shape in tensors.items():
        nbytes = 2 * prod(shape)
        if group and filled + nbytes > limit:
            yield group
            group, filled = {}, 0
        group[name] = shape
        filled += nbytes
    yield group


def write_checkpoint(folder: Path, model: Model, *, limit: int = 5_000_000_000, sparse: bool = False) -> int:
    """Write a checkpoint; returns how many bytes its files seem to have.

    Args:
        folder: To be created.
        model: What to write.
        limit: Bytes of a file's tensors.
        sparse: Leave holes where the weights would be.

    Raises:
        OSError: Where the file system has no room, or can't hold files with holes of this size.
    """
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(dict(model.config), indent=1), encoding="utf-8")
    pool = np.empty(0, np.uint16) if sparse else _random_pool()
    groups = list(shards(model.tensors, limit))
    weight_map: dict[str, str] = {}
    total = position = 0
    for number, group in enumerate(groups, 1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        header, _, size = make_header({key: ("BF16", shape) for key, shape in group.items()})
        with (folder / name).open("wb") as file:
            file.write(header)
            if sparse:
                os.truncate(file.fileno(), size)
            else:
                for shape in group.values():
                    for run in _runs(pool, position, prod(shape)):
                        file.write(run)
                    position = (position + prod(shape)) % len(pool)
        weight_map |= dict.fromkeys(group, name)
        total += size
    index = {"metadata": {"total_size": model.nbytes}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return total


def _random_pool() -> np.ndarray:
    drawn = np.random.default_rng(1).integers(0, 1 << 16, size=_POOL, dtype=np.uint16)
    return drawn & np.uint16(_FINITE)


def _runs(pool: np.ndarray, start: int, count: int) -> Iterator[memoryview]:
    """So many elements of the pool, going round it."""
    while count:
        run = pool[start : start + count]
        yield memoryview(run)
        count -= len(run)
        start = (start + len(run)) % len(pool)
