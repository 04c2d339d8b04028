"""The table of shards' tensors: one row for all that differ only in numbers, and what they are to a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from mscvt.description.description import Description, Parameter
from mscvt.errors.folding import fold_counted
from mscvt.parallel.grid import ShardName
from mscvt.plan.shares import Shares, filled
from mscvt.tensors.info import TensorInfo
from mscvt.views.names import NameRow, NameTable, Part, joined
from mscvt.views.ranks import cut_text

_FOLDED = 2
_NUMBER = re.compile(r"\d+")
_Place = tuple[int, str, str]
"""Stage, chunk, key."""


def shard_table(
    tensors: Mapping[ShardName, TensorInfo], description: Description | None, plain_key: Callable[[str], str]
) -> NameTable:
    """Fold the keys of all ranks.

    Args:
        tensors: Every tensor of every rank.
        description: The model, or None where nobody knows what model it is.
        plain_key: The key that the model has a tensor under, which may be wrapped in the checkpoint.
    """
    expected = {} if description is None else _expected(description)
    found: dict[tuple[object, ...], _Alike] = {}
    for (rank, chunk, key), info in tensors.items():
        parameter, shape = expected.get((rank.pipeline, chunk, plain_key(key)), (None, ()))
        layout = parameter.layout if parameter is not None else None
        mark = (layout, info.shape, info.dtype, shape)
        if mark not in found:
            found[mark] = _Alike(info.dtype, info.shape, shape)
        found[mark].add(key, parameter)
    groups = found.values()
    if description is None:
        return NameTable(tuple(row for group in groups for row in group.rows()))
    there = {(rank.pipeline, chunk, plain_key(key)) for rank, chunk, key in tensors}
    return NameTable(
        tuple(row for group in groups if group.parameters for row in group.rows()),
        tuple(row for group in groups if not group.parameters for row in group.rows()),
        _missing({place: each for place, each in expected.items() if place not in there}),
    )


def _expected(description: Description) -> dict[_Place, tuple[Parameter, tuple[int, ...]]]:
    """Every key of every chunk -> what it is, and the shape that each rank should have."""
    shares = Shares(description)
    return {
        (parameter.stage, parameter.chunk, filled(parameter.key, parameter.layout.left[0].held, cut.share.numbers)): (
            parameter,
            cut.share.shape,
        )
        for parameter in description.parameters
        for cut in shares.of(parameter.layout)
    }


def _missing(places: Mapping[_Place, tuple[Parameter, tuple[int, ...]]]) -> tuple[NameRow, ...]:
    found: dict[tuple[object, ...], _Alike] = {}
    for (_, _, key), (parameter, shape) in places.items():
        mark = (parameter.layout, shape)
        if mark not in found:
            found[mark] = _Alike(None, shape, shape)
        found[mark].add(key, parameter)
    return tuple(row for group in found.values() for row in group.rows())


class _Alike:
    """Tensors that are cut from the same layout and have the same shape and dtype."""

    def __init__(self, dtype: str | None, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
        self.dtype, self.shape, self.expected = dtype, shape, expected
        self.counts: dict[str, int] = {}
        self.parameters: dict[Parameter, None] = {}

    def add(self, key: str, parameter: Parameter | None) -> None:
        self.counts[key] = self.counts.get(key, 0) + 1
        if parameter is not None:
            self.parameters[parameter] = None

    def rows(self) -> list[NameRow]:
        """A row for all keys that fold into one; where they don't, for those that equally many ranks have."""
        part = self._part()
        templates: dict[str, dict[str, int]] = {}
        for key, count in self.counts.items():
            templates.setdefault(_NUMBER.sub("", key), {})[key] = count
        rows = []
        for counts in templates.values():
            lines = fold_counted(counts, _FOLDED)
            if len(lines) == 1:
                rows.append(NameRow(lines[0][0], sum(counts.values()), self.shape, self.dtype, part))
                continue
            for each in dict.fromkeys(counts.values()):
                alike = fold_counted((key for key, count in counts.items() if count == each), _FOLDED)
                rows += [NameRow(keys, each * count, self.shape, self.dtype, part) for keys, count in alike]
        return rows

    def _part(self) -> Part | None:
        if not self.parameters:
            return None
        layout = next(iter(self.parameters)).layout
        sources = fold_counted((name for one in self.parameters for name in one.names if name), _FOLDED)
        roles = joined(side.name for side in layout.right)
        return Part(roles, joined(name for name, _ in sources), cut_text(layout.cuts), self.expected)
