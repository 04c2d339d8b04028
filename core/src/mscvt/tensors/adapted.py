"""Weights to which low-rank factors are added where they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mscvt.errors import MscvtError
from mscvt.records import dataclass
from mscvt.tensors.bits import KINDS, Bits
from mscvt.tensors.computing import as_torch, values_of
from mscvt.tensors.info import FLOATS, TensorInfo
from mscvt.tensors.sources import Move, Source, SourceTensor

if TYPE_CHECKING:
    from pathlib import Path

    import torch

_PART = 1 << 20
"""Elements that are merged before they are moved."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """What is added to a weight that lies in memory as `[batch, rows, columns]`."""

    left: tuple[Any, ...]
    """Names of the parts, one after the other, of the factor that lies in memory as `[batch, rows, rank]`: B, or A
    where the weight is transposed."""
    right: tuple[Any, ...]
    """The same of the factor that lies in memory as `[batch, rank, columns]`."""
    rank: int
    scale: float


class AdaptedSource:
    """A source some of whose weights are shown with their factors added.

    Attributes:
        files: Those of the source.
        tensors: Its tensors, without the factors.
        notes: Its notes.
    """

    def __init__(
        self, source: Source, updates: Mapping[Any, LowRank], factors: Source, notes: Sequence[str] = ()
    ) -> None:
        """Wrap a source.

        Args:
            source: Where the weights are.
            updates: Name of a weight -> what is added to it.
            factors: Where the factors are, which may be the same source.
            notes: What is known of the source.

        Raises:
            MscvtError: Where shapes don't fit each other, or a weight is of a type that nothing can be added to.
        """
        self._source, self._updates, self._factors = source, updates, factors
        self.files: Sequence[Path] = source.files
        self.notes = tuple(notes)
        hidden = {name for update in updates.values() for name in (*update.left, *update.right)}
        self.tensors: Mapping[Any, TensorInfo] = {
            name: info for name, info in source.tensors.items() if factors is not source or name not in hidden
        }
        self._columns = {name: self._check(name, update) for name, update in updates.items()}

    def _check(self, name: Any, update: LowRank) -> int:
        """The columns of a weight's matrices."""
        weight, tensors = self._source.tensors[name], self._factors.tensors
        for factor, info in ((name, weight), *((part, tensors[part]) for part in (*update.left, *update.right))):
            if info.dtype not in FLOATS:
                raise MscvtError(f"{factor} is {info.dtype}, and factors are added to floating-point numbers alone")
        left, right = (sum(tensors[part].numel for part in parts) for parts in (update.left, update.right))
        batch = left * right // max(1, weight.numel * update.rank**2)
        rows, columns = (numel // max(1, batch * update.rank) for numel in (left, right))
        if batch * rows * columns != weight.numel or not batch:
            shapes = " and ".join(str(list(tensors[parts[0]].shape)) for parts in (update.left, update.right))
            raise MscvtError(
                f"{name} {list(weight.shape)} does not fit its factors {shapes}",
                hint="Is the adapter one of this model?",
            )
        return columns

    def tensor(self, name: Any) -> SourceTensor:
        """The elements of a tensor, with its factors added where it has any."""
        base = self._source.tensor(name)
        update = self._updates.get(name)
        if update is None:
            return base
        left, right = (_flat(self._factors, parts) for parts in (update.left, update.right))
        return AdaptedMatrix(base, left, right, update.rank, self._columns[name], update.scale)

    def close(self) -> None:
        """Let go of every open file."""
        for source in (self._source, self._factors):
            source.close()


def _flat(source: Source, parts: Sequence[Any]) -> torch.Tensor:
    flat = [values_of(source.tensor(part), 0, (source.tensors[part].numel,), (1,)) for part in parts]
    if len(flat) == 1:
        return flat[0]
    import torch

    return torch.cat(flat)


@dataclass(frozen=True, slots=True)
class AdaptedMatrix:
    """Matrices `[batch, rows, columns]`, to each of which a product of two factors is added."""

    base: SourceTensor
    left: torch.Tensor
    """`[batch, rows, rank]`, flat."""
    right: torch.Tensor
    """`[batch, rank, columns]`, flat."""
    rank: int
    columns: int
    scale: float

    @property
    def rows(self) -> int:
        """Rows of one matrix."""
        return len(self.left) * self.columns // len(self.right)

    @property
    def dtype(self) -> str:
        """Safetensors' name."""
        return self.base.dtype

    def region(self, offset: int, extents: tuple[int, ...], strides: tuple[int, ...]) -> Bits:
        """Compute the elements of the region, and no others."""
        order = sorted(range(len(extents)), key=lambda number: -strides[number])
        merged: Bits = np.empty([extents[number] for number in order], KINDS[self.dtype])
        merged = merged.transpose(sorted(order, key=order.__getitem__))  # a transposition is the engine's to make
        self._merge(values_of(self.base, offset, extents, strides), as_torch(merged, self.dtype), offset, strides)
        return merged

    def write(self, target: Bits, dtype: str, offset: int, strides: tuple[int, ...], move: Move) -> None:
        """Merge a region where it is wanted; what is to be transposed or cast, in parts that stay in the cache."""
        steps = sorted(zip(target.strides, strides, strict=True))
        if self.dtype == dtype and steps == sorted(steps, key=lambda step: step[1]):
            self._merge(values_of(self.base, offset, target.shape, strides), as_torch(target, dtype), offset, strides)
        elif target.size <= _PART or not strides:
            move(target, dtype, self.region(offset, target.shape, strides), self.dtype)
        else:
            outer = max(range(len(strides)), key=lambda number: (target.shape[number] > 1, strides[number]))
            step = max(1, _PART * target.shape[outer] // target.size)
            for start in range(0, target.shape[outer], step):
                part = target[(slice(None),) * outer + (slice(start, start + step),)]
                self.write(part, dtype, offset + start * strides[outer], strides, move)

    def _merge(self, base: torch.Tensor, merged: torch.Tensor, offset: int, strides: tuple[int, ...]) -> None:
        """Merge a region, divided where it goes on in the next row or matrix."""
        matrix = self.rows * self.columns
        for number, stride in enumerate(strides):
            if base.shape[number] == 1 or stride >= matrix or (stride > self.columns and stride % self.columns):
                self._one_by_one(base, merged, offset, strides, number)
                return
        for unit in (self.columns, matrix):
            inside = [number for number, stride in enumerate(strides) if stride < unit]
            reach = sum((base.shape[number] - 1) * strides[number] for number in inside)
            if offset % unit + reach >= unit:
                outer = max(inside, key=lambda number: strides[number])
                self._divide(base, merged, offset, strides, outer, unit)
                return
        along = [number for number, stride in enumerate(strides) if stride < self.columns]
        down = [number for number, stride in enumerate(strides) if stride >= self.columns]
        number, inner = divmod(offset, matrix)
        row, column = divmod(inner, self.columns)
        left = self.left.as_strided(
            (self.rank, *(base.shape[n] for n in down)),
            (1, *(strides[n] // self.columns * self.rank for n in down)),
            self.left.storage_offset() + (number * self.rows + row) * self.rank,
        )
        right = self.right.as_strided(
            (self.rank, *(base.shape[n] for n in along)),
            (self.columns, *(strides[n] for n in along)),
            self.right.storage_offset() + number * self.rank * self.columns + column,
        )
        order = (*down, *along)
        self._add(base.permute(order), merged.permute(order), left, right)

    def _one_by_one(
        self, base: torch.Tensor, merged: torch.Tensor, offset: int, strides: tuple[int, ...], outer: int
    ) -> None:
        """Merge the steps of one dimension apart."""
        rest = strides[:outer] + strides[outer + 1 :]
        for index in range(base.shape[outer]):
            at = offset + index * strides[outer]
            self._merge(base.select(outer, index), merged.select(outer, index), at, rest)

    def _divide(
        self, base: torch.Tensor, merged: torch.Tensor, offset: int, strides: tuple[int, ...], outer: int, unit: int
    ) -> None:
        """Divide the steps of one dimension at the ends of rows or matrices: a head, whole ones, and a tail."""
        step, count = strides[outer], base.shape[outer]
        smaller = sum(
            (extent - 1) * stride
            for number, (extent, stride) in enumerate(zip(base.shape, strides, strict=True))
            if stride < unit and number != outer
        )
        if unit % step or offset % step + smaller >= step:
            self._one_by_one(base, merged, offset, strides, outer)
            return
        each = unit // step
        head = min(count, -(offset % unit // step) % each)
        tail = (count - head) % each
        for start, extent in ((0, head), (head, count - head - tail), (count - tail, tail)):
            if not extent:
                continue
            inner, made, steps = base.narrow(outer, start, extent), merged.narrow(outer, start, extent), strides
            if extent > each:
                inner, made = (t.unflatten(outer, (extent // each, each)) for t in (inner, made))
                steps = (*strides[:outer], unit, *strides[outer:])
            self._merge(inner, made, offset + start * step, steps)

    def _add(self, base: torch.Tensor, merged: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
        """Merge a box: its rows are the leading dimensions, those of `left` behind the rank."""
        from mscvt.tensors.merging import merge

        rows, columns = (factor.reshape(self.rank, -1) for factor in (left, right))
        shape = (rows.shape[1], columns.shape[1])
        result = merged.reshape(shape)
        merge(base.reshape(shape), result, rows, columns, self.scale)
        if result.data_ptr() != merged.data_ptr():  # no view of it
            merged.copy_(result.view(merged.shape))
