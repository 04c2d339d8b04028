"""Where copies come from: a tensor whose regions can be read.

Most sources are bytes in a file. The few that are not copies (FP8 decoding, padding) are sources too, and
the engine does not know the difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class SourceTensor(Protocol):
    """Something to copy regions from."""

    def region(self, offset: int, extents: tuple[int, ...], strides: tuple[int, ...]) -> torch.Tensor:
        """The elements at `offset + sum(index * stride)`, as a tensor of shape `extents`."""
        ...


class PlainTensor:
    """Elements that lie in memory or in a mapped file."""

    def __init__(self, flat: torch.Tensor) -> None:
        self.flat = flat

    def region(self, offset: int, extents: tuple[int, ...], strides: tuple[int, ...]) -> torch.Tensor:
        """A view; nothing is copied."""
        return self.flat.as_strided(extents, strides, self.flat.storage_offset() + offset)
