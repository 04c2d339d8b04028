"""What every kind of quantized weight has in common."""

from __future__ import annotations

from itertools import accumulate
from operator import mul
from typing import TYPE_CHECKING, Protocol

from mscvt.tensors.info import TensorInfo
from mscvt.tensors.sources import Source, SourceTensor

if TYPE_CHECKING:
    import torch


class QuantizedWeight(Protocol):
    """One weight and the tensors that say what it means."""

    @property
    def kind(self) -> str:
        """What people call the format, for a message."""
        ...

    @property
    def info(self) -> TensorInfo:
        """What it is decoded to: dtype and shape; file and offset are those of the packed elements."""
        ...

    @property
    def companions(self) -> tuple[str, ...]:
        """Names of the tensors that it is decoded with."""
        ...

    def open(self, source: Source) -> SourceTensor:
        """The decoded elements, made from those of the source where they are read."""
        ...


def whole(source: Source, name: str) -> torch.Tensor:
    """All of a tensor of a source, which is a view where the source is plain."""
    from mscvt.tensors.computing import values_of

    shape = source.tensors[name].shape
    strides = tuple(accumulate(reversed(shape[1:]), mul, initial=1))[::-1] if shape else ()
    return values_of(source.tensor(name), 0, shape, strides)
