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

    from mscvt.tensors.bits import Bits


Move = Callable[["Bits", str, "Bits", str], None]
"""Copies elements to others of the same shape; behind the bits of either stands safetensors' name of their dtype."""


class SourceTensor(Protocol):
    """Something to copy regions from."""

    @property
    def dtype(self) -> str:
        """Safetensors' name."""
        ...

    def region(self, offset: int, extents: tuple[int, ...], strides: tuple[int, ...]) -> Bits:
        """The bits of the elements at `offset + sum(index * stride)`, as an array of shape `extents`."""
        ...


class Computed(SourceTensor, Protocol):
    """Something that is computed where it is read, and can be where it is wanted."""

    def write(self, target: Bits, dtype: str, offset: int, strides: tuple[int, ...], move: Move) -> None:
        """Put the elements at `offset + sum(index * stride)` into others, by `move` where they are made elsewhere."""
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
