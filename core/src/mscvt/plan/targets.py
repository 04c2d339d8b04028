"""The links of a description, grouped by what is to be written: by shard, by Hugging Face tensor, or joined.

A description links boxes of two vocabularies. Grouped by the training stack's tensors the links are the plan of one
direction, by Hugging Face's of the other; those of two descriptions, joined where they speak of the same Hugging Face
tensor, lead from one topology to another. A `Lot` is what is written of one parameter, without dtypes and files: a
layer differs from others of its kind, and an expert from its neighbours, in nothing but names and places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import NamedTuple, Protocol

from mscvt.errors import Faults
from mscvt.plan.contents import Copy, Name
from mscvt.records import dataclass


@dataclass(frozen=True, eq=False, slots=True)
class Form:
    """How a target is filled, without names; lots of layers that are alike have the same forms."""

    shape: tuple[int, ...]
    copies: tuple[Copy, ...]
    wanted: tuple[int, ...]
    """For each source of the copies, its number among the sources of the lot."""
    first: tuple[int, int] | None = field(init=False)
    """Number of the first source in the lot, and its element where the first copy begins; None for zeros alone."""

    def __post_init__(self) -> None:
        """Work out what is asked for once for each layer and expert."""
        begun = ((self.wanted[source], walk.right) for source, walk in self.copies if source is not None)
        object.__setattr__(self, "first", next(begun, None))


class Lot(NamedTuple):
    """Targets that are made of the same sources, or each of some of them."""

    names: Sequence[tuple[Name, ...]]
    """For each target, all places that hold it."""
    forms: Sequence[Form]
    """For each target, how it is filled."""
    sources: Sequence[Name]
    """All that the targets are made of; what is zeros alone has their dtype."""
    together: Sequence[Sequence[int]]
    """The numbers of the targets, by pieces of work."""
    keeps_dtype: bool

    def sources_of(self, number: int) -> tuple[Name, ...]:
        """The sources of a target's copies."""
        return tuple([self.sources[wanted] for wanted in self.forms[number].wanted])


class Grouping(Protocol):
    """Links in lots."""

    @property
    def expected(self) -> Mapping[Name, tuple[int, ...]]:
        """Every tensor that is read -> its shape."""

    def lots(self) -> Iterator[Lot]:
        """All that is written, in the order of the description."""

    def equal(self, *, replicas: bool) -> Iterator[tuple[Name, Sequence[Name]]]:
        """Tensors that are read, and those that are not, because they must be equal to them.

        Args:
            replicas: Whether what several ranks hold is among them.
        """

    def prove(self, faults: Faults) -> None:
        """Prove that each element on both sides is in exactly one place, once for each distinct layout."""
