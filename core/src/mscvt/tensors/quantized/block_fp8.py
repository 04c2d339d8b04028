"""FP8 weights with one scale for each block: value = e4m3 value * scale, in f32, rounded once to bf16.

Source: `weight_dequant` in `inference/kernel.py` of the first such release. Blocks at the right and lower edge may be
partial. Scales come in f32, bf16, fp16 and E8M0 (OCP Microscaling Formats: a byte b means 2^(b - 127), 255 NaN).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mscvt.tensors.info import TensorInfo
from mscvt.tensors.quantized.matrix import DecodedMatrix, rows_of_a_tile, tiles
from mscvt.tensors.quantized.weight import whole
from mscvt.tensors.sources import Source, SourceTensor

if TYPE_CHECKING:
    import numpy as np
    import torch

    from mscvt.tensors.bits import Bits

    _Floats = np.ndarray[Any, np.dtype[np.float32]]

SCALE_DTYPES = frozenset({"F32", "BF16", "F16", "F8_E8M0"})
BLOCK = (128, 128)
"""Rows and columns of a block where `weight_block_size` doesn't say otherwise."""
_NAN = 0x7F
"""The code of NaN but for its sign."""
_INVERSE = 2.0**8
"""What `_shrunk` takes from values and scales make up for."""
_LARGE = 2.0**120
"""Scales that would then be too large for f32."""


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
    import torch

    codes, factors = values.view(torch.uint8).numpy(), scales.to(torch.float32).numpy()

    def decode(first: int, end: int, left: int, right: int) -> torch.Tensor:
        return _decode(codes, factors, block, (first, end, left, right))

    return DecodedMatrix(values.shape[1], decode)


def _decode(codes: Bits, scales: _Floats, block: tuple[int, int], box: tuple[int, int, int, int]) -> torch.Tensor:
    """Decode a box."""
    import numpy as np
    import torch

    first, end, left, right = box
    height, width = block
    columns = right - left
    scales = scales[first // height : -(-end // height), left // width : -(-right // width)]
    are_small = bool(np.abs(scales).max() < _LARGE)  # false for NaN
    scales = np.repeat(scales * _INVERSE if are_small else scales, width, axis=1)[:, left % width :][:, :columns]
    factors = torch.from_numpy(scales).unbind()
    decoded = torch.empty((end - first, columns), dtype=torch.bfloat16)
    small = torch.empty((min(end - first, rows_of_a_tile(columns)), columns), dtype=torch.float16)
    wide = torch.empty(small.shape, dtype=torch.float32)
    for start, stop in tiles(first, end, columns):
        halves, values = small[: stop - start], wide[: stop - start]
        _shrunk(codes[start:stop, left:right], halves.numpy().view(np.int16))
        values.copy_(halves)
        if not are_small:
            values.mul_(_INVERSE)
        for number in range(start // height, -(-stop // height)):  # the rows of one block after another
            rows = slice(max(0, number * height - start), (number + 1) * height - start)
            values[rows].mul_(factors[number - first // height])
        decoded[start - first : stop - first].copy_(values)
    return decoded


def _shrunk(codes: Bits, bits: Bits) -> None:
    """Put the bits of fp16 values that are 2^-8 of e4m3 values, exactly, subnormal ones included.

    For that bits only move: fp16 has five of exponent, of which the last four are e4m3's, and ten of mantissa, of which
    the first three are. With torch's conversion of fp16 it takes a tenth of the time of that of e4m3.
    """
    import numpy as np

    signed = codes.view(np.int8)
    np.copyto(bits, signed)  # the sign is copied into all bits above
    np.multiply(bits, 1 << 7, out=bits)  # a fifth of a shift's time
    np.bitwise_and(bits, -0x4080, out=bits)  # all but the sign's first copy
    if signed.max() == _NAN or codes.max() == _NAN | 0x80:
        bits[(codes & _NAN) == _NAN] |= 0x4000  # the largest exponent
