"""Tensors that lie in parts: chunks of a global tensor, or runs of several tensors one behind the other."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING

from mscvt.layout.pairs import Loop, Pair, compose, pair
from mscvt.records import dataclass
from mscvt.tensors.sources import SourceTensor

if TYPE_CHECKING:
    from mscvt.tensors.bits import Bits


@dataclass(frozen=True, slots=True)
class Part:
    """Elements of a tensor that lie in another one."""

    walk: Pair
    """Left is the whole, right the part."""
    open: Callable[[], SourceTensor]
    """Gives the part's elements."""


class Assembled:
    """A tensor made of parts, which hold each of its elements once.

    Attributes:
        dtype: safetensors' name.
    """

    def __init__(self, dtype: str, parts: Sequence[Part]) -> None:
        """Put parts together.

        Args:
            dtype: safetensors' name.
            parts: In any order.
        """
        self.dtype = dtype
        self._parts = sorted(parts, key=lambda part: part.walk.left)
        self._starts = [part.walk.left for part in self._parts]
        self._reach = list(accumulate((part.walk.left_end for part in self._parts), max))

    def region(self, offset: int, extents: tuple[int, ...], strides: tuple[int, ...]) -> Bits:
        """The elements at `offset + sum(index * stride)`: a view where they lie in one run, else a copy."""
        end = offset + 1 + sum((extent - 1) * stride for extent, stride in zip(extents, strides, strict=True))
        met = self._parts[bisect_right(self._reach, offset) : bisect_left(self._starts, end)]
        for part in met:
            if part.walk.is_run and part.walk.left <= offset and end <= part.walk.left_end:
                return part.open().region(offset - part.walk.left + part.walk.right, extents, strides)
        return self._copied(met, offset, extents, strides)

    def _copied(self, parts: Sequence[Part], offset: int, extents: tuple[int, ...], strides: tuple[int, ...]) -> Bits:
        import numpy as np

        from mscvt.tensors.bits import KINDS, PlainTensor

        found = np.empty(extents, KINDS[self.dtype])
        elements = PlainTensor(found, self.dtype)
        own = [prod(extents[at + 1 :]) for at in range(len(extents))]
        wanted = pair(0, offset, [Loop(*loop) for loop in zip(extents, own, strides, strict=True)])
        for part in parts:
            for walk in compose(wanted, part.walk):
                shape = tuple(loop.extent for loop in walk.loops)
                target = elements.region(walk.left, shape, tuple(loop.left for loop in walk.loops))
                target[...] = part.open().region(walk.right, shape, tuple(loop.right for loop in walk.loops))
        return found
