"""Transposing matrices of plain bits, several times faster than an assignment of numpy or torch.

Measured on Zen 4 with matrices of 2-byte elements, a thread: `copy_` 0.3 to 2.5 GB/s (its fast path wants
both sides contiguous, which a share of a fused tensor never is), FBGEMM's kernel in tiles 4 to 9 GB/s,
numpy through a padded tile 1.4 to 3 GB/s.

FBGEMM is part of PyTorch's own library on Linux, which can be loaded without torch in a quarter of a second, and
is called through its exported symbol. The mangled name spells out the argument types, so that a changed signature is
a missing symbol; a kernel that is missing or fails its self-test is not used, and numpy does the work.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mscvt.tensors.bits import Bits
from mscvt.tensors.computing import load_torch

Kernel = Callable[[int, int, int, int, int, int], None]
"""Rows and columns of the source, source address, elements from row to row, the same two of the target."""

_LETTERS = {1: "h", 2: "t", 4: "f"}
"""Bytes of an element -> the C++ type in the mangled name: uint8_t, uint16_t, float (bits are only moved)."""
_SUPPORTED = "_ZN6fbgemm18fbgemmSupportedCPUEv"
"""Whether the processor has the vectors without which FBGEMM loops over single elements."""
_WORTH_LOADING = 1 << 18
"""Bytes of a matrix; numpy needs a tenth of a millisecond for one."""
_TILE_ROWS, _TILE_BYTES = 1024, 1024
"""Tiles keep the pages of both sides within the TLB; 512 to 2048 are about equal."""
_NUMPY_ROWS, _NUMPY_BYTES, _PADDING_BYTES = 256, 512, 64
"""A padded row keeps power-of-two strides from falling into one set of the cache."""


@cache
def kernel_for(width: int) -> Kernel | None:
    """FBGEMM's transposition for elements of so many bytes, or None where there is none that works."""
    library = _library() if width in _LETTERS else None
    kernel = getattr(library, f"_ZN6fbgemm14transpose_simdI{_LETTERS.get(width)}EEvllPKT_lPS1_l", None)
    if kernel is None:
        return None
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    kernel.restype, kernel.argtypes = None, [number, number, pointer, number, pointer, number]
    rows, columns, wider = 67, 45, 70
    source = np.arange(rows * columns * width, dtype=np.uint32).astype(np.uint8).view(f"u{width}")
    target = np.zeros((columns, wider), source.dtype)
    kernel(rows, columns, source.ctypes.data, columns, target.ctypes.data, wider)
    works = np.array_equal(target[:, :rows], source.reshape(rows, columns).T) and not target[:, rows:].any()
    return kernel if works else None


@cache
def _library() -> ctypes.CDLL | None:
    """PyTorch's library, where it has FBGEMM and the processor suits it."""
    found = find_spec("torch")
    path = Path(found.origin or "").parent / "lib" / "libtorch_cpu.so" if found else None
    if path is None or not path.is_file():
        return None
    library = _loaded(path)
    is_supported = getattr(library, _SUPPORTED, None)
    if is_supported is None:
        return None
    is_supported.restype, is_supported.argtypes = ctypes.c_bool, []
    return library if is_supported() else None


def _loaded(path: Path) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        load_torch()  # which looks for the libraries of GPUs in more places than the system does
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        return None


def transpose(target: Bits, source: Bits) -> None:
    """Write the transpose of `source` `[rows, columns]` to `target` `[columns, rows]`, each with rows of stride 1.

    The two must not share memory. The GIL is released during the work.
    """
    width = source.itemsize
    kernel = kernel_for(width) if source.nbytes >= _WORTH_LOADING else None
    if kernel is None:
        _transpose_numpy(target, source)
        return
    rows, columns = source.shape
    tile = _TILE_BYTES // width
    from_step, to_step = source.strides[0], target.strides[0]
    from_start, to_start = source.ctypes.data, target.ctypes.data
    for row in range(0, rows, _TILE_ROWS):
        for column in range(0, columns, tile):
            kernel(
                min(_TILE_ROWS, rows - row),
                min(tile, columns - column),
                from_start + row * from_step + column * width,
                from_step // width,
                to_start + column * to_step + row * width,
                to_step // width,
            )


def _transpose_numpy(to: Bits, by: Bits) -> None:
    columns = _NUMPY_BYTES // by.itemsize
    buffer = np.empty((_NUMPY_ROWS, columns + _PADDING_BYTES // by.itemsize), by.dtype)
    for row in range(0, by.shape[0], _NUMPY_ROWS):
        for column in range(0, by.shape[1], columns):
            tile = by[row : row + _NUMPY_ROWS, column : column + columns]
            part = buffer[: tile.shape[0], : tile.shape[1]]
            part[...] = tile
            to[column : column + columns, row : row + _NUMPY_ROWS] = part.T
