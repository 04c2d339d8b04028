"""The links of a description, grouped by what is to be written: by shard, by Hugging Face tensor, or joined.

A description links boxes of two vocabularies. Grouped by the training stack's tensors the links are the plan of one
direction, by Hugging Face's of the other; those of two descriptions, joined where they speak of the same Hugging Face
tensor, lead from one topology to another. A `Target` is such a group, without dtypes and files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from mscvt.errors import Faults
from mscvt.plan.contents import Copy, Name


class Target(NamedTuple):
    """A tensor to be written, and the links that fill it."""

    names: tuple[Name, ...]
    """All places that hold it."""
    shape: tuple[int, ...]
    copies: tuple[Copy, ...]
    sources: tuple[Name, ...]
    keeps_dtype: bool
    kin: tuple[Name, ...] = ()
    """Tensors whose dtype it takes where it is all padding and has no sources."""


class Grouping(Protocol):
    """Links in groups; a handle stands for targets that share sources."""

    @property
    def expected(self) -> Mapping[Name, tuple[int, ...]]:
        """Every tensor that is read -> its shape."""

    def handles(self) -> Iterator[Any]:
        """All work, in the order of the description."""

    def targets(self, handle: Any) -> tuple[Target, ...]:
        """The targets of one piece of work."""

    def equal(self, *, replicas: bool) -> Iterator[tuple[Name, Name]]:
        """Tensors that are not read, because they must be equal to others that are: (read, not read).

        Args:
            replicas: Whether what several ranks hold is among them.
        """

    def prove(self, faults: Faults) -> None:
        """Prove that each element on both sides is in exactly one place, once for each distinct layout."""
