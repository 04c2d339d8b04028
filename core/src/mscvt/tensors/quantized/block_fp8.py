"""FP8 weights with one scale for each block: value = e4m3 value * scale, in f32, rounded once to bf16.

Source: `weight_dequant` in `inference/kernel.py` of the first such release. Blocks at the right and lower edge may be
partial. Scales come in f32, bf16, fp16 and E8M0 (OCP Microscaling Formats: a byte b means 2^(b - 127), 255 NaN).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from mscvt.records import dataclass
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.quantized.matrix import DecodedMatrix, rows_of_a_tile, tiles
from mscvt.tensors.quantized.weight import whole
from mscvt.tensors.sources import Source, SourceTensor

if TYPE_CHECKING:
    import torch

    from mscvt.tensors.bits import Bits

SCALE_DTYPES = frozenset({"F32", "BF16", "F16", "F8_E8M0"})
BLOCK = (128, 128)
"""Rows and columns of a block where `weight_block_size` doesn't say otherwise."""
_NAN = 0x7F
"""The code of NaN but for its sign."""
_INVERSE = 2.0**120
"""What `shrink` takes from values and scales make up for."""
_LARGE = 2.0**8
"""Scales that would then be too large for f32."""

Multiply = Callable[["torch.Tensor", "torch.Tensor", "torch.Tensor"], None]
"""Puts shrunken values `[rows, blocks, width]` times f32 factors `[blocks]` into bf16 elements, rounded once."""
Way = tuple[Multiply, "torch.Tensor"]
"""How values are multiplied, and by the factors of which blocks `[down, across]`."""


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

    codes, scales = values.view(torch.uint8).numpy(), scales.to(torch.float32)
    of_nan: Way = by_element, scales
    usual = of_nan
    if float(scales.amin()) > 0 and float(scales.amax()) < _LARGE and is_exact():  # none is NaN
        usual = by_channel, scales * _INVERSE

    def decode(first: int, end: int, left: int, right: int) -> torch.Tensor:
        return _decode(codes, (usual, of_nan), block, (first, end, left, right))

    return DecodedMatrix(values.shape[1], decode)


def _decode(codes: Bits, ways: tuple[Way, Way], block: tuple[int, int], box: tuple[int, int, int, int]) -> torch.Tensor:
    """Decode a box; on the way there are all columns of its blocks, with anything in those that are not its own.

    The second way is for what has NaN in it, to which the first one gives other bits at the end of a row.
    """
    import torch

    first, end, left, right = box
    height, width = block
    above, skipped = first // height, left % width
    blocks = -(-right // width) - left // width
    there = slice(above, -(-end // height)), slice(left // width, left // width + blocks)
    here = [(multiply, factors[there]) for multiply, factors in ways]
    if blocks == 1:  # a part of one is as good as a whole
        width, skipped = right - left, 0
    columns, inside = blocks * width, slice(skipped, skipped + right - left)
    is_whole = columns == right - left
    decoded = torch.empty((end - first, right - left), dtype=torch.bfloat16)
    room = torch.empty((min(end - first, rows_of_a_tile(columns // 2)), blocks, width), dtype=torch.bfloat16)
    bits = room.view(torch.int16).numpy().reshape(-1, columns)[:, inside]
    for start, stop in tiles(first, end, columns // 2):
        multiply, factors = here[shrink(codes[start:stop, left:right], bits[: stop - start])]
        wanted = decoded[start - first : stop - first]
        made = wanted.view(-1, blocks, width) if is_whole else torch.empty_like(room[: stop - start])
        for row in range(start // height, -(-stop // height)):
            rows = slice(max(0, row * height - start), (row + 1) * height - start)
            multiply(room[: stop - start][rows], factors[row - above], made[rows])
        if not is_whole:
            wanted.copy_(made.view(-1, columns)[:, inside])
    return decoded


def shrink(codes: Bits, bits: Bits) -> bool:
    """Put the bits of bf16 values that are 2^-120 of e4m3 values, exactly, subnormal ones included.

    For that bits only move: of the exponent in bf16 the last four are e4m3's, of the mantissa the first three. It takes
    a tenth of the time of torch's conversion.

    Returns:
        Whether NaN is among them.
    """
    import numpy as np

    signed = codes.view(np.int8)
    np.copyto(bits, signed)  # the sign is copied into all bits above
    np.multiply(bits, 1 << 4, out=bits)  # a fifth of a shift's time
    np.bitwise_and(bits, -0x7810, out=bits)  # sign, and seven bits from the 11th on
    has_nan = bool(signed.max() == _NAN or codes.max() == _NAN | 0x80)
    if has_nan:
        bits[(codes & _NAN) == _NAN] |= 0x7800  # the largest exponent
    return has_nan


def by_element(shrunk: torch.Tensor, scales: torch.Tensor, into: torch.Tensor) -> None:
    """Multiply in the order of the definition; see `Multiply`."""
    import torch

    into.copy_(shrunk.to(torch.float32).mul_(_INVERSE).mul_(scales[:, None]))


def by_channel(shrunk: torch.Tensor, factors: torch.Tensor, into: torch.Tensor) -> None:
    """Multiply all at once by scales times `_INVERSE`, positive and finite; see `Multiply`.

    The one operation of torch that multiplies bf16 by f32 without f32 in memory between is a normalisation of channels:
    (x - 0) / sqrt(1 + 0) * factor + -0.0, in f32, of which nothing but the product is rounded.
    """
    import torch

    zeros, minus_zeros, ones, unused = _neutral(len(factors))
    out = into, unused, unused
    torch.native_batch_norm(shrunk, factors, minus_zeros, zeros, ones, False, 0.0, 0.0, out=out)


@lru_cache(maxsize=1024)
def _neutral(blocks: int) -> tuple[torch.Tensor, ...]:
    """What changes nothing in a normalisation."""
    import torch

    zeros = torch.zeros(blocks)
    return zeros, -zeros, torch.ones(blocks), torch.empty(0)


@cache
def is_exact() -> bool:
    """Whether `by_channel` gives the same bits as `by_element` on this machine, which is tried with every number."""
    import numpy as np
    import torch

    codes = np.setdiff1d(np.arange(256, dtype=np.uint8), [_NAN, _NAN | 0x80])
    random = torch.Generator().manual_seed(0)
    for blocks, width in ((1, 1), (3, 127), (16, 128)):
        shrunk = torch.empty((len(codes), blocks, width), dtype=torch.bfloat16)
        each = np.add.outer(np.arange(len(codes)), np.arange(blocks * width)) % len(codes)
        shrink(codes[each], shrunk.view(torch.int16).numpy().reshape(each.shape))
        scales = (torch.randint(1 << 8, 1 << 9, (blocks,), generator=random) | 1).float()  # one bit more than bf16 has
        scales[1::2] += torch.rand(blocks // 2, generator=random)
        scales *= torch.randint(-157, -2, (blocks,), generator=random).exp2()
        found, expected = torch.empty_like(shrunk), torch.empty_like(shrunk)
        by_channel(shrunk, scales * _INVERSE, found)
        by_element(shrunk, scales, expected)
        if not torch.equal(found.view(torch.int16), expected.view(torch.int16)):
            return False
    return True
