"""Hugging Face's tensors under their own names: each is copied as it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import prod

from mscvt.description.description import Description
from mscvt.errors import Faults
from mscvt.layout.pairs import Loop, pair
from mscvt.plan.by_shard import ByShard
from mscvt.plan.contents import Copy
from mscvt.plan.targets import Form, Lot


class Same:
    """A description's Hugging Face tensors, on both sides."""

    def __init__(self, description: Description, there: Collection[str]) -> None:
        """Group a model's tensors.

        Args:
            description: The model.
            there: The names in the source; tensors that repeat others are written where they are there.
        """
        self._shards = ByShard(description)
        self.expected: Mapping[str, tuple[int, ...]] = self._shards.expected
        self._repeated: dict[str, list[str]] = {}
        for name, alias in sorted(description.aliases.items()):
            if alias.is_written and name in there:
                self._repeated.setdefault(alias.of, []).append(name)

    def lots(self) -> Iterator[Lot]:
        """The tensors, each with its repetitions."""
        forms: dict[tuple[int, ...], Form] = {}
        for name, shape in self.expected.items():
            if shape not in forms:
                forms[shape] = Form(shape, (Copy(0, pair(0, 0, [Loop(prod(shape), 1, 1)])),), (0,))
            names = (name, *self._repeated.get(name, ()))
            yield Lot([names], (forms[shape],), [name], [(0,)], keeps_dtype=False)

    def equal(self, *, replicas: bool) -> Iterator[tuple[str, Sequence[str]]]:
        """Hugging Face tensors that repeat others."""
        return self._shards.equal(replicas=replicas)

    def prove(self, faults: Faults) -> None:
        """Each tensor is one copy of all of it; shapes are compared with the source's in any case."""
