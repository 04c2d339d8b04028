"""Elements as bits, for which torch need not be loaded: what is moved and not computed is numpy's whole numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mscvt.tensors.info import ITEM_SIZES

Bits = np.ndarray[Any, np.dtype[Any]]
"""Elements as whole numbers of their size, so that no NaN can change on the way; of any shape and strides."""

KINDS: Mapping[str, np.dtype[Any]] = {
    name: np.dtype({1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}[size]) for name, size in ITEM_SIZES.items()
}
"""safetensors' name of a dtype -> what its bits are held as."""

Memory = bytes | memoryview | Bits
"""What elements lie in, byte after byte."""


class PlainTensor:
    """Elements that lie side by side in memory or in a mapped file.

    Attributes:
        dtype: safetensors' name.
    """

    __slots__ = ("_buffer", "dtype")

    def __init__(self, buffer: Memory, dtype: str) -> None:
        """Take the memory, and the elements' dtype."""
        self.dtype, self._buffer = dtype, buffer

    def region(self, offset: int, extents: tuple[int, ...], strides: tuple[int, ...]) -> Bits:
        """A view of the elements at `offset + sum(index * stride)`, as an array of shape `extents`.

        Raises:
            ValueError: Where it would reach beyond the memory.
        """
        width = ITEM_SIZES[self.dtype]
        steps = tuple([stride * width for stride in strides])
        view: Bits = np.ndarray(extents, KINDS[self.dtype], self._buffer, offset * width, steps)
        return view
