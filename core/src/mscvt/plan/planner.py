"""From links to a proven plan: which files, which tensors in them, which copies fill them; one for all directions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

from mscvt.errors import Faults
from mscvt.plan.contents import Content, Name, OutputFile, Plan, Unit, shown
from mscvt.plan.targets import Grouping, Target
from mscvt.tensors.info import FLOATS, ITEM_SIZES, TensorInfo


class Entry(NamedTuple):
    """A tensor that is written."""

    name: Name
    dtype: str
    shape: tuple[int, ...]


NameFiles = Callable[[Iterable[Entry]], Iterable[OutputFile]]
"""Divides what is written among files; entries come in the order of the description."""


@dataclass(frozen=True, slots=True)
class Words:
    """How faults of a source are told."""

    message: str
    """What they amount to."""
    missing: str
    """What to do where a tensor is missing."""
    unknown: str
    """What is wrong with a tensor that nothing takes."""
    unknown_hint: str
    shape: str
    """Who says which shape a tensor should have."""
    shape_hint: str | None = None


@dataclass(frozen=True, slots=True)
class Tolerated:
    """What a source may hold besides what is read."""

    repeats: Mapping[Name, Name] = field(default_factory=dict)
    """Tensor -> the one that it repeats."""
    left_out: Mapping[Name, str] = field(default_factory=dict)
    """Tensor -> why it is not converted."""
    passed_over: Callable[[Name], str | None] = field(default=lambda name: None)
    """Why a tensor that nothing takes is left out; None where it must not be."""


def make_plan(
    grouping: Grouping,
    source: Mapping[Name, TensorInfo],
    files: NameFiles,
    words: Words,
    *,
    tolerated: Tolerated | None = None,
    dtype: str | None = None,
    replicas: bool = True,
) -> Plan:
    """Plan a conversion.

    Args:
        grouping: What is written and where it comes from.
        source: Every tensor of the source.
        files: Divides what is written among files.
        words: How faults of the source are told.
        tolerated: What the source may hold besides.
        dtype: Convert floating-point tensors to this dtype; None keeps each one's own.
        replicas: Whether what several ranks hold must be equal.

    Raises:
        MscvtError: Where the source lacks a tensor, has one that no rule takes, or one of another shape or dtype than
            the model's; all of them at once.
    """
    tolerated = tolerated or Tolerated()
    left_out = check_source(grouping, source, words, tolerated)
    faults = Faults()
    grouping.prove(faults)
    faults.raise_if_any("the plan does not hold")
    entries: list[Entry] = []
    work: list[tuple[tuple[int, int], int, Any]] = []
    for number, handle in enumerate(grouping.handles()):
        targets = grouping.targets(handle)
        work.append((_position(targets[0], source), number, handle))
        for target in targets:
            found = _dtype_of(target, source, dtype, faults)
            entries += (Entry(name, found, target.shape) for name in target.names)
    faults.raise_if_any("the plan does not hold")
    work.sort(key=lambda entry: entry[:2])

    def units() -> Iterator[Unit]:
        for number, (_, _, handle) in enumerate(work):
            targets = grouping.targets(handle)
            yield Unit(
                number,
                tuple(
                    Content(t.names, _dtype_of(t, source, dtype, faults), t.shape, t.copies, t.sources) for t in targets
                ),
            )

    equal = tuple(
        (kept, other, source[kept].numel) for kept, other in grouping.equal(replicas=replicas) if other in source
    )
    return Plan(tuple(files(entries)), len(work), units, equal, left_out)


def check_source(
    grouping: Grouping, source: Mapping[Name, TensorInfo], words: Words, tolerated: Tolerated
) -> dict[Name, str]:
    """Prove that the source is what the description needs.

    Returns:
        What is left out, and why.

    Raises:
        MscvtError: As `make_plan`.
    """
    faults = Faults()
    expected = grouping.expected
    left_out = {name: why for name, why in tolerated.left_out.items() if name in source}
    for name in sorted(expected.keys() - source.keys()):
        faults.add(f"missing: {shown(name)}", hint=words.missing)
    for name in sorted(source.keys() - expected.keys() - tolerated.repeats.keys() - left_out.keys()):
        if why := tolerated.passed_over(name):
            left_out[name] = why
        else:
            faults.add(f"{words.unknown}: {shown(name)}", hint=words.unknown_hint)
    for name, shape in expected.items():
        if name in source and source[name].shape != shape:
            faults.add(
                f"{shown(name)} has the shape {list(source[name].shape)}, expected {list(shape)} from {words.shape}",
                hint=words.shape_hint,
            )
    for name, of in tolerated.repeats.items():
        info, primary = source.get(name), source.get(of)
        if info and primary and (info.shape, info.dtype) != (primary.shape, primary.dtype):
            faults.add(f"{shown(name)} repeats {shown(of)} and has another shape or dtype")
    faults.raise_if_any(words.message)
    return left_out


def _dtype_of(target: Target, source: Mapping[Name, TensorInfo], asked: str | None, faults: Faults) -> str:
    """The dtype that a target gets: its sources', unless another was asked for."""
    found = {source[name].dtype for name in target.sources or target.kin}
    if asked and not target.keeps_dtype and found <= FLOATS:
        return asked
    if len(found) != 1:
        first, *rest = (shown(name) for name in target.sources)
        faults.add(
            f"{shown(target.names[0])} is made from tensors of different dtypes ({', '.join(sorted(found))}), "
            f"{first} and {len(rest)} others",
            hint="--dtype converts all of them to one.",
        )
    return min(found)


def _position(target: Target, source: Mapping[Name, TensorInfo]) -> tuple[int, int]:
    """Where the first source of a target lies, in bytes."""
    first = next((copy for copy in target.copies if copy.source is not None), None)
    if first is None or first.source is None:
        return (-1, -1)
    info = source[target.sources[first.source]]
    return info.file, info.offset + first.pair.right * ITEM_SIZES[info.dtype]


def nbytes_of(entry: Entry) -> int:
    """Bytes of a tensor that is written."""
    return prod(entry.shape) * ITEM_SIZES[entry.dtype]
