"""Tensors that are laid out of others, with zeros between them, where they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mscvt.layout.pairs import Pair
from mscvt.records import dataclass
from mscvt.tensors.assembled import Assembled, Part
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.sources import Source, SourceTensor

if TYPE_CHECKING:
    from pathlib import Path

    from mscvt.tensors.bits import Bits


@dataclass(frozen=True, slots=True)
class Plot:
    """What a tensor is laid out of."""

    shape: tuple[int, ...]
    parts: tuple[tuple[Any, Pair], ...]
    """Names, None for zeros, each with a walk: left is the tensor, right the one that has the name."""


class LaidOut:
    """A source, and tensors that are laid out of its own."""

    def __init__(self, source: Source, plots: Mapping[Any, Plot]) -> None:
        """Take the source, and name -> what it is laid out of."""
        self._source, self._plots = source, plots
        self.files: Sequence[Path] = source.files
        infos = {name: next(source.tensors[of] for of, _ in plot.parts if of) for name, plot in plots.items()}
        made = {name: TensorInfo(info.dtype, plots[name].shape, info.file, info.offset) for name, info in infos.items()}
        self.tensors: Mapping[Any, TensorInfo] = {**source.tensors, **made}

    def tensor(self, name: Any) -> SourceTensor:
        """The elements of a tensor."""
        plot = self._plots.get(name)
        if plot is None:
            return self._source.tensor(name)
        dtype = self.tensors[name].dtype
        opened = [(partial(self._source.tensor, of) if of else partial(_Zeros, dtype), walk) for of, walk in plot.parts]
        return Assembled(dtype, [Part(walk, open_it) for open_it, walk in opened])

    def close(self) -> None:
        """Let go of every open file."""
        self._source.close()


@dataclass(frozen=True, slots=True)
class _Zeros:
    dtype: str

    def region(self, offset: int, extents: tuple[int, ...], strides: tuple[int, ...]) -> Bits:  # noqa: ARG002
        """As many as are asked for."""
        import numpy as np

        from mscvt.tensors.bits import KINDS

        return np.zeros(extents, KINDS[self.dtype])
