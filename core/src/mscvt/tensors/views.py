"""Tensors that are parts of others, or others transposed, as tensors of their own; for small ones, which are copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mscvt.records import dataclass
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.sources import Source, SourceTensor

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class View:
    """Elements of a tensor, at `offset + sum(index * stride)`."""

    of: str | None
    """The tensor; None for zeros."""
    shape: tuple[int, ...]
    strides: tuple[int, ...] = ()
    offset: int = 0
    scale: float = 1.0
    """What each element is multiplied with."""


class ViewSource:
    """A source of views.

    Attributes:
        files: Those of the original.
        tensors: The views.
        views: What each of them is.
    """

    def __init__(self, original: Source, views: Mapping[str, View], dtype: str) -> None:
        """Make views of a source; `dtype` is that of zeros."""
        self.views = views
        self.files: Sequence[Path] = original.files
        self._original = original
        zeros = TensorInfo(dtype, (), 0, 0)
        self.tensors: Mapping[str, TensorInfo] = {
            name: (zeros if view.of is None else original.tensors[view.of])._replace(shape=view.shape)
            for name, view in views.items()
        }

    def tensor(self, name: str) -> SourceTensor:
        """The elements of a view."""
        import numpy as np

        from mscvt.tensors.bits import KINDS, PlainTensor
        from mscvt.tensors.computing import as_bits, as_torch

        view, info = self.views[name], self.tensors[name]
        if view.of is None:
            return PlainTensor(np.zeros(info.numel, KINDS[info.dtype]), info.dtype)
        part = self._original.tensor(view.of).region(view.offset, view.shape, view.strides)
        if view.scale != 1:
            part = as_bits(as_torch(part, info.dtype) * view.scale)
        return PlainTensor(np.ascontiguousarray(part), info.dtype)

    def close(self) -> None:
        """Let go of every open file."""
        self._original.close()
