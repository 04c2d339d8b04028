"""FP4 weights, two e2m1 codes a byte, with one E8M0 scale for each 32 columns of a row.

Source: OCP Microscaling Formats (MXFP4); the low nibble is the even column. Every product is exact in bf16
but for the smallest scales, where it is rounded once. Code 8 is -0.0.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from mscvt.records import dataclass
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.quantized.matrix import DecodedMatrix, tiles
from mscvt.tensors.quantized.weight import whole
from mscvt.tensors.sources import Source, SourceTensor

if TYPE_CHECKING:
    import torch

GROUP = 32
"""Columns that share a scale."""
VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""What codes 0 to 7 mean; 8 to 15 are their negatives."""


@dataclass(frozen=True, slots=True)
class Fp4Weight:
    """A matrix of codes `[rows, columns / 2]` and its scales `[rows, columns / 32]`."""

    name: str
    scale: str
    info: TensorInfo

    @property
    def kind(self) -> str:
        """What people call the format."""
        return "FP4"

    @property
    def companions(self) -> tuple[str, ...]:
        """The scales."""
        return (self.scale,)

    def open(self, source: Source) -> SourceTensor:
        """The values in bf16."""
        return fp4(whole(source, self.name), whole(source, self.scale))


def fp4(packed: torch.Tensor, scales: torch.Tensor) -> DecodedMatrix:
    """Codes `[rows, columns / 2]`, one byte each, and E8M0 scales `[rows, columns / 32]` as a source of bf16."""
    import torch

    codes, exponents = packed.view(torch.uint8), scales.view(torch.uint8)

    def decode(first: int, end: int, left: int, right: int) -> torch.Tensor:
        low, high = left // GROUP, -(-right // GROUP)
        width = (high - low) * GROUP
        decoded = torch.empty((end - first, width // 2), dtype=torch.int32)
        for start, stop in tiles(first, end, width // 2):
            which = codes[start:stop, low * GROUP // 2 : high * GROUP // 2].to(torch.int32)
            groups = which.view(stop - start, high - low, GROUP // 2)
            groups += exponents[start:stop, low:high, None].to(torch.int32) * 256
            torch.index_select(_pairs(), 0, which.view(-1), out=decoded[start - first : stop - first].view(-1))
        values = decoded.view(torch.bfloat16)
        if width == right - left:
            return values
        return values[:, left - low * GROUP : right - low * GROUP].clone(memory_format=torch.contiguous_format)

    return DecodedMatrix(2 * packed.shape[1], decode)


@cache
def _pairs() -> torch.Tensor:
    """The two bf16 values that a scale and a byte make, as one number of 32 bits at `256 * scale + byte`."""
    import torch

    values = torch.tensor([*VALUES, *(-value for value in VALUES)], dtype=torch.bfloat16)
    byte = torch.arange(256)
    scales = byte.to(torch.uint8).view(torch.float8_e8m0fnu).to(torch.bfloat16)
    pairs = torch.stack([values[byte & 15], values[byte >> 4]], dim=1)
    return (pairs * scales[:, None, None]).view(torch.int32).flatten()
