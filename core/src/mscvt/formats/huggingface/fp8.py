"""DeepSeek's FP8 weights as a source of bf16: value = e4m3 value * scale of its 128 x 128 block.

Source: `weight_dequant` in DeepSeek-V3's `inference/kernel.py`; blocks at the right and lower edge may be partial.
"""

from __future__ import annotations

import torch

BLOCK = 128


class BlockQuantizedTensor:
    """An FP8 matrix with the scales of its blocks, decoded a row of blocks at a time."""

    def __init__(self, values: torch.Tensor, scales: torch.Tensor) -> None:
        """Take values `[rows, columns]` in e4m3 and scales `[ceil(rows / 128), ceil(columns / 128)]` in f32."""
        self.values, self.scales = values, scales

    def region(self, offset: int, extents: tuple[int, ...], strides: tuple[int, ...]) -> torch.Tensor:
        """Decode the rows that the region touches, and take the region out of them."""
        columns = self.values.shape[1]
        last = offset + sum((extent - 1) * stride for extent, stride in zip(extents, strides, strict=True))
        first_row, end_row = offset // columns, last // columns + 1
        decoded = self.rows(first_row, end_row)
        return decoded.as_strided(extents, strides, offset - first_row * columns)

    def rows(self, first: int, end: int) -> torch.Tensor:
        """Decode rows `[first, end)` to bf16 `[end - first, columns]`."""
        columns = self.values.shape[1]
        decoded = torch.empty((end - first, columns), dtype=torch.bfloat16)
        row = first
        while row < end:
            block = row // BLOCK
            stop = min(end, (block + 1) * BLOCK)
            scales = self.scales[block].repeat_interleave(BLOCK)[:columns]
            decoded[row - first : stop - first] = self.values[row:stop].to(torch.float32) * scales
            row = stop
        return decoded
