"""W + scale * (B @ A), rounded once, to W's dtype; the product is summed rank by rank in ascending order, in f32.

So there is one result for every block, thread and machine. A BLAS sums in an order of its own and promises nothing; but
it is many times as fast as a sum of ranks, and is used where that makes no difference:

- Products of bf16 or f16 numbers are exact in f32. Where the machine's product of matrices adds them in ascending
  order, which is tried with numbers of which other orders have other sums, it is the same.
- Elsewhere its error has a bound. Almost always both ends of what is possible are rounded to the same bf16 or f16
  number; what is not so is computed rank by rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import product
from math import frexp
from typing import Any

import numpy as np
import torch

_MOST = 256, 1024
"""Rows and columns of the largest tile: enough to be worth some calls, few enough to stay in a core's cache."""
_GRAIN = 32
"""What they are multiples of, so that there are few sizes to be tried."""
_SIZE, _SCALE = 2.0**50, 2.0**15
"""Elements and scales up to these and, unless zero, down to their inverses have products far from the ends of f32."""
_UNIT = 2.0**-24
"""The relative error of rounding to f32."""
_LOST = 2.0**-60
"""Its square is more than what sums lose by products that are too small for f32."""
_MANY = 16
"""One in so many elements: where more are not sure, all of a tile are computed rank by rank."""


_Pair = tuple[torch.Tensor, torch.Tensor]
"""Of a tile, `[rank, rows]` of B and `[rank, columns]` of A, in f32; and with zeros where the tile is at an end."""


def merge(base: torch.Tensor, result: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float) -> None:
    """Merge a matrix.

    Args:
        base: W, `[rows, columns]`.
        result: Where the merged matrix is put.
        left: B, `[rank, rows]`.
        right: A, `[rank, columns]`.
        scale: What their product is multiplied with.
    """
    wide = torch.promote_types(base.dtype, torch.float32)
    height, width = map(_tile, base.shape, _MOST)
    rows, columns = _packed(left.to(wide), height), _packed(right.to(wide), width)
    way = _by_rank
    if wide == torch.float32 and 1 / _SCALE <= abs(scale) <= _SCALE:
        if _are_exact(left, right) and _keeps_order(len(left), height, width, torch.get_num_threads()):
            way = _ordered
            if frexp(scale)[0] == 0.5:  # a power of two, which rounds nothing wherever it is multiplied
                rows, scale = rows * scale, 1.0
        elif base.dtype != wide:
            way = _bounded
    room = torch.zeros((4, height, width), dtype=wide)
    for down, across in product(range(len(rows)), range(len(columns))):
        box = slice(down * height, (down + 1) * height), slice(across * width, (across + 1) * width)
        way(base[box], result[box], (rows[down], columns[across]), scale, room)


def _tile(extent: int, most: int) -> int:
    """The size of equal tiles of so many rows or columns, the last of which is filled up."""
    each = -(-extent // -(-extent // most))
    return -(-each // _GRAIN) * _GRAIN


def _packed(factor: torch.Tensor, size: int) -> torch.Tensor:
    """A factor as `[tiles, rank, size]`, the last one filled up with zeros."""
    rank, extent = factor.shape
    count = -(-extent // size)
    packed = factor.new_zeros((rank, count * size))
    packed[:, :extent] = factor
    return packed.view(rank, count, size).transpose(0, 1).contiguous()


def _by_rank(weight: torch.Tensor, made: torch.Tensor, factors: _Pair, scale: float, room: torch.Tensor) -> None:
    """Merge a tile by the definition."""
    total, term = room[:2, : weight.shape[0], : weight.shape[1]]
    left, right = factors
    pairs = left[:, : weight.shape[0], None].numpy(), right[:, None, : weight.shape[1]].numpy()
    _sum(total, term, zip(*pairs, strict=True))
    made.copy_(total.mul_(scale).add_(term.copy_(weight)))


def _sum(total: torch.Tensor, term: torch.Tensor, pairs: Iterable[tuple[Any, Any]]) -> None:
    """Sum products, each rounded before it is added; a fused operation would not do that."""
    to, by = total.zero_().numpy(), term.numpy()
    with np.errstate(all="ignore"):  # what is too large is infinite, without a warning, as in a product of matrices
        for ours, theirs in pairs:
            np.multiply(ours, theirs, out=by)
            np.add(to, by, out=to)


def _ordered(weight: torch.Tensor, made: torch.Tensor, factors: _Pair, scale: float, room: torch.Tensor) -> None:
    """Merge a tile by a product of matrices that sums as the definition does."""
    total, term = room[:2, : weight.shape[0], : weight.shape[1]]
    if scale == 1:
        total.copy_(weight)
        room[0].addmm_(factors[0].t(), factors[1])
    else:
        torch.mm(factors[0].t(), factors[1], out=room[0])
        total.mul_(scale).add_(term.copy_(weight))
    made.copy_(total)


def _bounded(weight: torch.Tensor, made: torch.Tensor, factors: _Pair, scale: float, room: torch.Tensor) -> None:
    """Merge a tile by a product of matrices, and those elements by the definition that its error could change."""
    torch.mm(factors[0].t(), factors[1], out=room[0])
    change, wide, other = room[:3, : weight.shape[0], : weight.shape[1]]
    change.mul_(scale)
    # A sum of rounded products, in any order, is off by less than a unit for each rank of the sum of their sizes.
    error = 1.01 * _UNIT * (2 * len(factors[0]) + 4) * abs(scale)
    sizes = [factor.square().sum(0).sqrt()[:end] for factor, end in zip(factors, weight.shape, strict=True)]
    by_row, by_column = sizes[0].mul_(error).add_(_LOST), sizes[1].add_(_LOST)
    made.copy_(torch.addr(change, by_row, by_column, out=other).add_(wide.copy_(weight)))
    above = room[3].view(made.dtype).flatten()[: made.numel()].view(made.shape)
    above.copy_(change.addr_(by_row, by_column, alpha=-1).add_(wide))
    unsure = np.flatnonzero(above.view(torch.int16).numpy() != made.view(torch.int16).numpy())
    if len(unsure) * _MANY > weight.numel():
        _by_rank(weight, made, factors, scale, room)
        return
    down, across = np.unravel_index(unsure, weight.shape)
    total, term = torch.empty((2, len(unsure)))
    left, right = (factor.numpy() for factor in factors)
    _sum(total, term, ((ours[down], theirs[across]) for ours, theirs in zip(left, right, strict=True)))
    at = torch.from_numpy(down), torch.from_numpy(across)
    made[at] = total.mul_(scale).add_(weight[at]).to(made.dtype)


def _are_exact(*factors: torch.Tensor) -> bool:
    """Whether products of elements are exact in f32, as those of bf16 and f16 numbers are."""
    for factor in factors:
        if factor.dtype == torch.float32 and not torch.equal(factor.bfloat16().float(), factor):
            return False
        sizes = factor.float().abs()
        most, least = sizes.amax(), torch.where(sizes == 0, 1.0, sizes).amin()
        if factor.dtype.itemsize > 4 or not (most <= _SIZE and least >= 1 / _SIZE):
            return False
    return True


@lru_cache(maxsize=1024)
def _keeps_order(rank: int, height: int, width: int, threads: int) -> bool:  # noqa: ARG001  # a BLAS may divide by it
    """Whether products of tiles are summed rank by rank and added to the weight in the end, on this machine."""
    random = torch.Generator().manual_seed(rank)

    def drawn(*shape: int) -> torch.Tensor:
        numbers = torch.randint(-4095, 4096, shape, generator=random)  # 12 bits, so that products have f32's 24
        return numbers * torch.randint(0, 8, shape, generator=random).exp2()

    room = torch.zeros(2, height, width)
    expected, found = torch.empty((2, height, width))
    for scale in (1.0, 0.75, 1.0, 0.75):
        factors, weight = (drawn(rank, height), drawn(rank, width)), drawn(height, width) * drawn(1, width) / 3
        factors[0][:, ::7], weight[::7] = 0.0, -0.0
        _by_rank(weight, expected, factors, scale, room)
        _ordered(weight, found, factors, scale, room)
        if not torch.equal(expected.view(torch.int32), found.view(torch.int32)):
            return False
    return True
