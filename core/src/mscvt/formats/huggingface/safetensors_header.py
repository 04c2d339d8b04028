"""The header of a safetensors file, read and written without touching the tensors.

Format: https://huggingface.co/docs/safetensors, an 8-byte little-endian length, that many bytes of JSON,
then the tensors' bytes without holes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from mscvt.errors import MscvtError, shown
from mscvt.formats.files import POINTER, refuse_pointer
from mscvt.formats.json_files import parse_json
from mscvt.tensors.info import ITEM_SIZES, TensorInfo

_HEADER_LIMIT = 100_000_000
"""Bytes; the limit that the safetensors library sets itself."""
_ALIGNMENT = 8
_LARGEST = 1 << 63
"""Of no size are there more bytes or elements."""


def read_header(path: Path, number: int) -> dict[str, TensorInfo]:
    """Read and check the header of file `number` of a checkpoint.

    Raises:
        MscvtError: Where the header lies about itself or the file: its size, dtypes, shapes or offsets.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            if len(prefix) < 8:
                raise MscvtError(f"{path}: not a safetensors file, it has only {size} bytes")
            length = struct.unpack("<Q", prefix)[0]
            refuse_pointer(path, prefix + file.read(len(POINTER) - len(prefix)))
            file.seek(len(prefix))
            if length > min(_HEADER_LIMIT, size - 8):
                raise MscvtError(
                    f"{path}: its header claims {length} bytes, the file has {size}",
                    hint="The file is truncated or no safetensors file; download it again.",
                )
            text = file.read(length)
    except OSError as error:
        raise MscvtError(f"{path}: can't be read: {error.strerror}") from None
    header = parse_json(text, path, "its header ")
    if not isinstance(header, dict):
        raise MscvtError(f"{path}: its header is not an object")
    header.pop("__metadata__", None)
    start = 8 + length
    found = {name: _entry(path, name, entry, number, start) for name, entry in header.items()}
    position = 0
    for (begin, end), name in sorted([(entry["data_offsets"], name) for name, entry in header.items()]):
        if begin != position:
            raise MscvtError(f"{path}: tensor {name!r} overlaps another or leaves a hole (byte {start + begin})")
        position = end
    position += start
    if position != size:
        raise MscvtError(
            f"{path}: its tensors end at byte {position}, the file has {size}",
            hint="The file is truncated or has been changed; download it again.",
        )
    return found


def _entry(path: Path, name: str, entry: Any, number: int, start: int) -> TensorInfo:
    """One entry of a header, checked."""
    if not name.isprintable():
        raise MscvtError(f"{path}: tensor {ascii(name)[:100]} has a name that can't be shown")
    if not isinstance(entry, dict):
        raise MscvtError(f"{path}: tensor {name!r} has no description")
    dtype: Any = entry.get("dtype")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    item = ITEM_SIZES.get(dtype) if isinstance(dtype, str) else None
    if item is None:
        raise MscvtError(
            f"{path}: tensor {name!r} has the dtype {shown(repr(dtype), 50)}; known are {', '.join(ITEM_SIZES)}"
        )
    if not _are_sizes(shape, 64) or not _are_sizes(offsets, 2) or len(offsets) != 2:
        raise MscvtError(
            f"{path}: tensor {name!r} has an impossible shape or offsets: {shown(shape)}, {shown(offsets)}"
        )
    begin, end = offsets
    if end - begin != prod(shape) * item:
        raise MscvtError(f"{path}: tensor {name!r} of shape {shape} and dtype {dtype} can't have {end - begin} bytes")
    return TensorInfo(dtype, tuple(shape), number, start + begin)


def _are_sizes(values: Any, most: int) -> bool:
    """Whether these are so many whole numbers at the most that fit a file's size; `true` is none."""
    if type(values) is not list or len(values) > most:
        return False
    for value in values:  # noqa: SIM110  # half of the time that a generator takes, for each number of each header
        if type(value) is not int or not 0 <= value < _LARGEST:
            return False
    return True


def make_header(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> tuple[bytes, dict[str, int], int]:
    """Lay out a file: name -> (dtype, shape) in order.

    Returns:
        The bytes before the tensors, the offset of each tensor from the file's start, and the file's size.
    """
    entries = ['{"__metadata__":{"format":"pt"}']
    alike: dict[tuple[str, tuple[int, ...]], tuple[int, str]] = {}
    position = 0
    starts = {}
    for name, what in tensors.items():
        if what not in alike:
            dtype, shape = what
            said = json.dumps({"dtype": dtype, "shape": shape}, separators=(",", ":"))
            alike[what] = prod(shape) * ITEM_SIZES[dtype], said.removesuffix("}")
        nbytes, said = alike[what]
        starts[name] = position
        entries.append(f'{json.dumps(name)}:{said},"data_offsets":[{position},{position + nbytes}]}}')
        position += nbytes
    text = f"{','.join(entries)}}}".encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    header = struct.pack("<Q", len(text)) + text
    return header, {name: start + len(header) for name, start in starts.items()}, len(header) + position
