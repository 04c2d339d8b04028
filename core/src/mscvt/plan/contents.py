"""What a plan consists of.

A `Copy` says where elements of a target come from, a `Content` is one tensor to be written (to every rank that holds a
replica of it) and the copies that fill it, a `Unit` the contents that are made from the same sources and are therefore
made together. All numbers are elements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

from mscvt.layout.pairs import Pair
from mscvt.records import dataclass
from mscvt.tensors.info import ITEM_SIZES

Name = Any
"""A tensor's name on its side: a string for Hugging Face, (rank, chunk, key) for a training stack."""


class Copy(NamedTuple):
    """Elements of a target, and where they come from."""

    source: int | None
    """Index into the content's sources; None for zeros."""
    pair: Pair
    """Left is the target, right the source."""


class Content(NamedTuple):
    """One tensor and everything it is made from."""

    targets: tuple[Name, ...]
    """All places that get these same bytes."""
    dtype: str
    """safetensors' name."""
    shape: tuple[int, ...]
    copies: tuple[Copy, ...]
    sources: tuple[Name, ...]

    @property
    def numel(self) -> int:
        """Elements of the tensor."""
        return prod(self.shape)


class Unit(NamedTuple):
    """Contents that share sources; the smallest piece of work that is finished or not."""

    number: int
    contents: tuple[Content, ...]


@dataclass(frozen=True)
class OutputFile:
    """A file to be written: target -> (dtype, shape), in the order of the file."""

    path: str
    """Below the target folder."""
    tensors: Mapping[Name, tuple[str, tuple[int, ...]]]
    labels: Mapping[str, int] = field(default_factory=dict)
    """What `--only` knows the file by: `tp`, `pp` and `ep`, or `file`."""

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        alike = Counter(self.tensors.values())
        return sum(count * prod(shape) * ITEM_SIZES[dtype] for (dtype, shape), count in alike.items())


@dataclass(frozen=True)
class Plan:
    """A proven conversion."""

    files: tuple[OutputFile, ...]
    unit_count: int
    make_units: Callable[[], Iterator[Unit]] = field(repr=False)
    equal: tuple[tuple[Name, Name, int], ...] = ()
    """Source tensors that must hold the same elements, of which only the first is converted, and how many."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Source tensors that are not converted -> why."""

    def units(self) -> Iterator[Unit]:
        """All work, in the order in which the sources lie in their files."""
        return self.make_units()

    @property
    def largest_dtype(self) -> str:
        """The dtype of the largest tensor, which is the one that the model as a whole is said to have."""
        alike = dict.fromkeys(what for file in self.files for what in file.tensors.values())
        return max(alike, key=lambda what: prod(what[1]))[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors that are written."""
        return sum(file.nbytes for file in self.files)


def shown(name: Name) -> str:
    """A tensor's name for an error."""
    if isinstance(name, str):
        return name
    rank, chunk, key = name
    return f"{key} ({chunk} of rank tp {rank.tensor}, pp {rank.pipeline}, ep {rank.expert})"
