"""Allocating a Hugging Face checkpoint: safetensors files with room for their tensors, and the index."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mscvt.formats.huggingface.safetensors_header import make_header, read_header
from mscvt.plan.contents import Name, OutputFile

SINGLE = "model.safetensors"
INDEX = f"{SINGLE}.index.json"


def file_name(number: int, count: int) -> str:
    """What transformers calls file `number` (from 1) of so many."""
    return SINGLE if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"


def allocate(path: Path, tensors: Mapping[Name, tuple[str, tuple[int, ...]]]) -> dict[Name, int]:
    """Write a file's header and reserve the space behind it.

    Returns:
        The offset of each tensor from the file's start, in bytes.
    """
    header, offsets, size = make_header({str(name): what for name, what in tensors.items()})
    with path.open("wb") as file:
        file.write(header)
        os.truncate(file.fileno(), size)
    return {name: offsets[str(name)] for name in tensors}


def offsets_in(path: Path) -> dict[Name, int]:
    """Where the tensors of an allocated file are."""
    return {name: info.offset for name, info in read_header(path, 0).items()}


def write_index(folder: Path, files: Sequence[OutputFile]) -> None:
    """Write `model.safetensors.index.json`, `total_size` in bytes; a single `model.safetensors` has none."""
    if [file.path for file in files] == [SINGLE]:
        return
    weight_map = {str(name): file.path for file in files for name in file.tensors}
    index = {
        "metadata": {"total_size": sum(file.nbytes for file in files)},
        "weight_map": dict(sorted(weight_map.items())),
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
