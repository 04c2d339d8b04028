"""Where copies come from: checkpoints, and tensors whose regions can be read.

Most sources are bytes in a file. The few that are not copies (decoding, padding) are sources too: they wrap
another one, and the engine does not know the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from mscvt.tensors.info import TensorInfo

if TYPE_CHECKING:
    from pathlib import Path

    import torch


Move = Callable[["torch.Tensor", "torch.Tensor"], None]
"""Copies elements to a tensor, the first one, from another of the same shape."""


class SourceTensor(Protocol):
    """Something to copy regions from."""

    def region(self, offset: int, extents: tuple[int, ...], strides: tuple[int, ...]) -> torch.Tensor:
        """The elements at `offset + sum(index * stride)`, as a tensor of shape `extents`."""
        ...


class Computed(SourceTensor, Protocol):
    """Something that is computed where it is read, and can be where it is wanted."""

    def write(self, target: torch.Tensor, offset: int, strides: tuple[int, ...], move: Move) -> None:
        """Put the elements at `offset + sum(index * stride)` into a tensor, by `move` where they are made elsewhere."""
        ...


def is_computed(source: SourceTensor) -> TypeGuard[Computed]:
    """Whether a tensor is; `isinstance` of a protocol takes 50 microseconds."""
    return hasattr(source, "write")


class Source(Protocol):
    """A checkpoint whose headers have been read, or another source seen in another way."""

    @property
    def files(self) -> Sequence[Path]:
        """Every file that is read, in the order that `TensorInfo.file` counts."""
        ...

    @property
    def tensors(self) -> Mapping[Any, TensorInfo]:
        """Every tensor by its name on its side: a string for Hugging Face, (rank, chunk, key) for Megatron."""
        ...

    def tensor(self, name: Any) -> SourceTensor:
        """The elements of a tensor, as something to copy regions from."""
        ...

    def close(self) -> None:
        """Let go of every open file; a tensor that is asked for afterwards opens its file again."""
        ...


class NotedSource(Source, Protocol):
    """A source of which the user should know something."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found and decided when it was opened, one line each."""
        ...


class PlainTensor:
    """Elements that lie in memory or in a mapped file."""

    def __init__(self, flat: torch.Tensor) -> None:
        self.flat = flat

    def region(self, offset: int, extents: tuple[int, ...], strides: tuple[int, ...]) -> torch.Tensor:
        """A view; nothing is copied."""
        return self.flat.as_strided(extents, strides, self.flat.storage_offset() + offset)
