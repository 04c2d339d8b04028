"""Block-scaled FP8 weights as a source of bf16: value = e4m3 value * scale of its 128 x 128 block.

Source: `weight_dequant` in `inference/kernel.py` of the first such release. Blocks at the right and lower edge
may be partial.
"""

from __future__ import annotations

import torch

BLOCK = 128


class BlockQuantizedTensor:
    """An FP8 matrix with the scales of its blocks; only what is asked for is decoded, a row of blocks at a time."""

    def __init__(self, values: torch.Tensor, scales: torch.Tensor) -> None:
        """Take values `[rows, columns]` in e4m3 and scales `[ceil(rows / 128), ceil(columns / 128)]` in f32."""
        self.values, self.scales = values, scales

    def region(self, offset: int, extents: tuple[int, ...], strides: tuple[int, ...]) -> torch.Tensor:
        """Decode the rows and columns that the region touches, and take the region out of them."""
        columns = self.values.shape[1]
        row, left = divmod(offset, columns)
        spans = [((extent - 1) * stride, stride) for extent, stride in zip(extents, strides, strict=True)]
        down = sum(span for span, stride in spans if stride % columns == 0)
        along = sum(span for span, stride in spans if stride % columns)
        if left + along >= columns:  # a run over several rows
            left, width, end = 0, columns, (offset + down + along) // columns + 1
        else:
            width, end = along + 1, row + down // columns + 1
        decoded = self.box(row, end, left, left + width)
        steps = tuple(stride // columns * width if stride % columns == 0 else stride for stride in strides)
        return decoded.as_strided(extents, steps, offset - row * columns - left)

    def box(self, first: int, end: int, left: int, right: int) -> torch.Tensor:
        """Decode rows `[first, end)` and columns `[left, right)` to bf16 `[end - first, right - left]`."""
        decoded = torch.empty((end - first, right - left), dtype=torch.bfloat16)
        row = first
        while row < end:
            block = row // BLOCK
            stop = min(end, (block + 1) * BLOCK)
            scales = self.scales[block, left // BLOCK : -(-right // BLOCK)].repeat_interleave(BLOCK)
            scales = scales[left % BLOCK :][: right - left]
            decoded[row - first : stop - first] = self.values[row:stop, left:right].to(torch.float32) * scales
            row = stop
        return decoded
