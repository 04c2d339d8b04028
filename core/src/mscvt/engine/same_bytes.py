"""Comparing bytes as fast as they can be read.

Measured on Zen 4, a thread: `torch.equal` of bytes 0.8 GB/s, of 64-bit numbers 4.9, for which a file's bytes need not
be aligned; `memcmp` 7.2 GB/s.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np

from mscvt.tensors.bits import Bits


@cache
def _memcmp() -> Any:
    function = ctypes.CDLL(None).memcmp
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    return function


def same_bytes(ours: Bits, theirs: Bits) -> bool:
    """Whether two arrays of bytes `[n]` are equal. The GIL is released during the work."""
    ours, theirs = np.ascontiguousarray(ours), np.ascontiguousarray(theirs)
    return len(ours) == len(theirs) and _memcmp()(ours.ctypes.data, theirs.ctypes.data, len(ours)) == 0
