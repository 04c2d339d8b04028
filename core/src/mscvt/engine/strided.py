"""Copying between strided views of equal shape, in the way that is fast for each."""

from __future__ import annotations

from itertools import product

import torch

from mscvt.engine.transpose import transpose

_LEAST_MATRIX = 4096
"""Elements below which a matrix is not worth a call of its own."""

Axis = tuple[int, int, int]
"""Extent, stride in the target, stride in the source."""


def copy_strided(target: torch.Tensor, source: torch.Tensor) -> None:
    """Copy `source` to `target`, integer tensors of the same shape and width that share no memory."""
    axes = merge_axes(target.shape, target.stride(), source.stride())
    inner = [axis for axis in axes if axis[1] == 1], [axis for axis in axes if axis[2] == 1]
    if not inner[0] or not inner[1] or inner[0] == inner[1] or inner[0][0][0] * inner[1][0][0] < _LEAST_MATRIX:
        target.copy_(source)
        return
    (rows, _, row_step), (columns, column_step, _) = inner[0][0], inner[1][0]
    rest = [axis for axis in axes if axis not in (inner[0][0], inner[1][0])]
    for index in product(*(range(extent) for extent, _, _ in rest)):
        to = target.storage_offset() + sum(i * axis[1] for i, axis in zip(index, rest, strict=True))
        by = source.storage_offset() + sum(i * axis[2] for i, axis in zip(index, rest, strict=True))
        transpose(
            target.as_strided((columns, rows), (column_step, 1), to),
            source.as_strided((rows, columns), (row_step, 1), by),
        )


def merge_axes(extents: tuple[int, ...], target: tuple[int, ...], source: tuple[int, ...]) -> list[Axis]:
    """Drop axes of extent 1 and join neighbours that are one axis on both sides.

    >>> merge_axes((2, 3, 4), (12, 4, 1), (24, 4, 1))
    [(2, 12, 24), (12, 1, 1)]
    """
    merged: list[Axis] = []
    for extent, to, by in zip(extents, target, source, strict=True):
        if extent == 1:
            continue
        if merged and merged[-1][1] == extent * to and merged[-1][2] == extent * by:
            merged[-1] = (merged[-1][0] * extent, to, by)
        else:
            merged.append((extent, to, by))
    return merged
