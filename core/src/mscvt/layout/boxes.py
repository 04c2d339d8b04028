"""Boxes of a tensor with axes, and the proof that some of them are all of it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from operator import add, gt
from typing import NamedTuple

from mscvt.layout.pairs import Loop, Pair, pair

_MOST_PARTS = 8
"""Into how many parts a box may be cut on average before nobody can have meant it."""


class Box(NamedTuple):
    """A box of a tensor: where it begins, and its extent, in each dimension."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


def walk_of(shape: Sequence[int], box: Box) -> Pair:
    """The elements of a box: left in the tensor, right in the box as a tensor of its own, both in row-major order.

    >>> walk_of((4, 6), Box((1, 2), (2, 3)))
    Pair(left=8, right=0, loops=(Loop(extent=2, left=6, right=3), Loop(extent=3, left=1, right=1)))
    """
    ours = [prod(shape[at + 1 :]) for at in range(len(shape))]
    theirs = [prod(box.sizes[at + 1 :]) for at in range(len(shape))]
    start = sum(offset * stride for offset, stride in zip(box.offsets, ours, strict=True))
    return pair(start, 0, [Loop(*loop) for loop in zip(box.sizes, ours, theirs, strict=True)])


def untiled(shape: Sequence[int], boxes: Sequence[Box]) -> str | None:
    """Prove that boxes, none of them empty, hold each element of a tensor exactly once.

    Returns:
        None where the proof holds, else what is wrong.

    >>> untiled((4, 6), [Box((0, 0), (4, 2)), Box((0, 2), (4, 4))])
    >>> untiled((4, 6), [Box((0, 0), (4, 2)), Box((0, 3), (4, 3))])
    '4 of its 24 elements are in none of them'
    """
    for offsets, sizes in boxes:
        if len(offsets) != len(shape) or len(sizes) != len(shape):
            return f"the one at {list(offsets)} has not {len(shape)} dimensions"
        if any(map(gt, map(add, offsets, sizes), shape)):
            return f"the one at {list(offsets)} of shape {list(sizes)} is not inside of its shape {list(shape)}"
    missing = prod(shape) - sum(prod(box.sizes) for box in boxes)
    if missing > 0:
        return f"{missing} of its {prod(shape)} elements are in none of them"
    if missing < 0 or _overlap(boxes, len(shape), [_MOST_PARTS * len(boxes) * max(1, len(shape))]):
        return "some of its elements are in more than one of them"
    return None


def _overlap(boxes: Sequence[Box], dimensions: int, left: list[int], at: int = 0) -> bool:
    """Whether any two boxes that have all dimensions before `at` in common meet; True too where that is past telling.

    The boxes are divided where any of them begins or ends, dimension by dimension.
    """
    if len(boxes) < 2 or at == dimensions:
        return len(boxes) > 1
    marks = sorted({end for box in boxes for end in (box.offsets[at], box.offsets[at] + box.sizes[at])})
    number = {mark: index for index, mark in enumerate(marks)}
    slabs: dict[int, list[Box]] = {}
    for box in boxes:
        parts = range(number[box.offsets[at]], number[box.offsets[at] + box.sizes[at]])
        left[0] -= len(parts)
        if left[0] < 0:
            return True
        for part in parts:
            slabs.setdefault(part, []).append(box)
    return any(_overlap(inside, dimensions, left, at + 1) for inside in slabs.values())
