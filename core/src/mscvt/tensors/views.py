"""Tensors that are parts of others, or others transposed, as tensors of their own; for small ones, which are copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mscvt.tensors.info import TORCH_NAMES, TensorInfo
from mscvt.tensors.sources import PlainTensor, Source, SourceTensor

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
            name: replace(zeros if view.of is None else original.tensors[view.of], shape=view.shape)
            for name, view in views.items()
        }

    def tensor(self, name: str) -> SourceTensor:
        """The elements of a view."""
        import torch

        view = self.views[name]
        if view.of is None:
            return PlainTensor(torch.zeros(self.tensors[name].numel, dtype=getattr(torch, self._dtype(name))))
        part = self._original.tensor(view.of).region(view.offset, view.shape, view.strides)
        return PlainTensor((part if view.scale == 1 else part * view.scale).contiguous().view(-1))

    def close(self) -> None:
        """Let go of every open file."""
        self._original.close()

    def _dtype(self, name: str) -> str:
        return TORCH_NAMES[self.tensors[name].dtype]
