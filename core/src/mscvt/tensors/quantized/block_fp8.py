"""FP8 weights with one scale for each block: value = e4m3 value * scale, in f32, rounded once to bf16.

Source: `weight_dequant` in `inference/kernel.py` of the first such release. Blocks at the right and lower edge may be
partial. Scales come in f32, bf16, fp16 and E8M0 (OCP Microscaling Formats: a byte b means 2^(b - 127), 255 NaN).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mscvt.tensors.info import TensorInfo
from mscvt.tensors.quantized.matrix import DecodedMatrix, tiles
from mscvt.tensors.quantized.weight import whole
from mscvt.tensors.sources import Source, SourceTensor

if TYPE_CHECKING:
    import torch

SCALE_DTYPES = frozenset({"F32", "BF16", "F16", "F8_E8M0"})
BLOCK = (128, 128)
"""Rows and columns of a block where `weight_block_size` doesn't say otherwise."""


@dataclass(frozen=True, slots=True)
class BlockFp8Weight:
    """A matrix of e4m3 values `[rows, columns]` and its scales `[ceil(rows / block), ceil(columns / block)]`."""

    name: str
    scale: str
    block: tuple[int, int]
    info: TensorInfo

    @property
    def kind(self) -> str:
        """What people call the format."""
        return "FP8"

    @property
    def companions(self) -> tuple[str, ...]:
        """The scales."""
        return (self.scale,)

    def open(self, source: Source) -> SourceTensor:
        """The values in bf16."""
        return block_fp8(whole(source, self.name), whole(source, self.scale), self.block)


def block_fp8(values: torch.Tensor, scales: torch.Tensor, block: tuple[int, int] = BLOCK) -> DecodedMatrix:
    """A matrix of e4m3 `[rows, columns]` and the scales of its blocks as a source of bf16."""

    def decode(first: int, end: int, left: int, right: int) -> torch.Tensor:
        return _decode(values, scales, block, (first, end, left, right))

    return DecodedMatrix(values.shape[1], decode)


def _decode(
    values: torch.Tensor, scales: torch.Tensor, block: tuple[int, int], box: tuple[int, int, int, int]
) -> torch.Tensor:
    import torch

    first, end, left, right = box
    height, width = block
    scales = scales[first // height : -(-end // height), left // width : -(-right // width)].to(torch.float32)
    scales = scales.repeat_interleave(width, dim=1)[:, left % width :][:, : right - left]
    decoded = torch.empty((end - first, right - left), dtype=torch.bfloat16)
    scratch, bits = torch.empty(0, dtype=torch.float32), torch.empty(0, dtype=torch.int16)
    are_small = float(scales.abs().amax()) < 2.0**7  # false for NaN
    for start, stop in tiles(first, end, right - left):
        scratch = scratch.resize_((stop - start, right - left))
        factor = _to_f32(values[start:stop, left:right], scratch, bits.resize_(scratch.shape), by_bits=are_small)
        row = start
        while row < stop:  # the rows of one block after another
            until = min(stop, (row // height + 1) * height)
            scratch[row - start : until - start].mul_(scales[row // height - first // height] * factor)
            row = until
        decoded[start - first : stop - first] = scratch
    return decoded


def _to_f32(values: torch.Tensor, into: torch.Tensor, bits: torch.Tensor, *, by_bits: bool) -> float:
    """Put e4m3 values into f32, multiplied by a power of two so small that bits only move; returns its inverse.

    Four bits of exponent and three of mantissa go where bf16 has the last four and the first three of its own, which
    is 2^-120 of the value, exactly, subnormal ones included. With it a matrix is decoded four to eight times
    as fast as with torch's conversion, which remains for NaN and for scales that 2^120 would drive beyond f32.
    """
    import torch

    codes = values.view(torch.int8)
    has_nan = int(codes.amax()) == 0x7F or int(values.view(torch.uint8).amax()) == 0xFF
    if has_nan or not by_bits:
        into.copy_(values)
        return 1.0
    bits.copy_(codes)  # the sign is copied into all bits above
    bits.mul_(16)  # three times as fast as a shift
    bits.bitwise_and_(-0x7810)  # sign, and seven bits from the 11th on
    into.copy_(bits.view(torch.bfloat16))
    return 2.0**120
