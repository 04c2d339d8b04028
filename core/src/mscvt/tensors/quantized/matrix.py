"""A matrix that is decoded where it is read: from regions of strided elements to boxes of rows and columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from mscvt.tensors.bits import Bits

Decode = Callable[[int, int, int, int], "torch.Tensor"]
"""Gives rows `[first, end)` and columns `[left, right)` as a contiguous tensor `[end - first, right - left]`."""

_TILE = 1 << 18
"""Numbers of 32 bits that are made together: enough to be worth the calls, few enough to stay in a core's cache.
FP8 was decoded at 0.65 GB/s with 2^15, 1.06 with 2^18 and 0.98 with 2^20."""


class DecodedMatrix:
    """A source of which only the rows and columns that a region touches are decoded.

    Attributes:
        dtype: safetensors' name of what is decoded to.
    """

    def __init__(self, columns: int, decode: Decode, dtype: str = "BF16") -> None:
        """Take the length of a row, what decodes a box, and to what."""
        self.columns, self.decode, self.dtype = columns, decode, dtype

    def region(self, offset: int, extents: tuple[int, ...], strides: tuple[int, ...]) -> Bits:
        """Decode the box around the region, and take the region out of it."""
        from mscvt.tensors.computing import as_bits

        columns = self.columns
        row, left = divmod(offset, columns)
        spans = [((extent - 1) * stride, stride) for extent, stride in zip(extents, strides, strict=True)]
        down = sum(span for span, stride in spans if stride % columns == 0)
        along = sum(span for span, stride in spans if stride % columns)
        if left + along >= columns:  # a run over several rows
            left, width, end = 0, columns, (offset + down + along) // columns + 1
        else:
            width, end = along + 1, row + down // columns + 1
        decoded = self.decode(row, end, left, left + width)
        steps = tuple(stride // columns * width if stride % columns == 0 else stride for stride in strides)
        return as_bits(decoded.as_strided(extents, steps, offset - row * columns - left))


def rows_of_a_tile(width: int) -> int:
    """How many rows of so many numbers of 32 bits are decoded together at the most."""
    return max(1, _TILE // max(1, width))


def tiles(first: int, end: int, width: int) -> Iterator[tuple[int, int]]:
    """Divide rows `[first, end)` into runs that are decoded together.

    Args:
        first: The first row.
        end: The row behind the last one.
        width: Numbers of 32 bits that a row is made of on the way; half of its columns where it is decoded in bf16.

    >>> list(tiles(0, 300, 2048))
    [(0, 128), (128, 256), (256, 300)]
    """
    step = rows_of_a_tile(width)
    for start in range(first, end, step):
        yield start, min(start + step, end)
