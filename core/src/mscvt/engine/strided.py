"""Copying between strided views of equal shape, in the way that is fast for each."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import as_strided

from mscvt.engine.transpose import transpose
from mscvt.tensors.bits import Bits

_LEAST_MATRIX = 4096
"""Elements below which a matrix is not worth a call of its own."""

Axis = tuple[int, int, int]
"""Extent, and the bytes from one index to the next in the target and in the source."""


def copy_strided(target: Bits, source: Bits) -> None:
    """Copy `source` to `target`, which have the same shape and width and share no memory."""
    if target.size < _LEAST_MATRIX:
        target[...] = source
        return
    axes = merge_axes(target.shape, target.strides, source.strides)
    width = target.itemsize
    inner = [axis for axis in axes if axis[1] == width], [axis for axis in axes if axis[2] == width]
    if not inner[0] or not inner[1] or inner[0] == inner[1] or inner[0][0][0] * inner[1][0][0] < _LEAST_MATRIX:
        target[...] = source
        return
    (rows, _, row_step), (columns, column_step, _) = inner[0][0], inner[1][0]
    rest = [axis for axis in axes if axis not in (inner[0][0], inner[1][0])]
    outer = tuple(axis[0] for axis in rest)
    to = as_strided(target, (*outer, columns, rows), (*(axis[1] for axis in rest), column_step, width))
    by = as_strided(source, (*outer, rows, columns), (*(axis[2] for axis in rest), row_step, width))
    for index in np.ndindex(outer):
        transpose(to[index], by[index])


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
