"""From links to a proven plan: which files, which tensors in them, which copies fill them; one for all directions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import field
from operator import itemgetter

from mscvt.errors import Faults
from mscvt.plan.contents import Content, Name, OutputFile, Plan, Unit, shown
from mscvt.plan.targets import Form, Grouping, Lot
from mscvt.records import dataclass
from mscvt.tensors.info import FLOATS, ITEM_SIZES, TensorInfo

Tensors = dict[Name, tuple[str, tuple[int, ...]]]
"""What is written -> its dtype and shape."""

NameFiles = Callable[[Tensors], Iterable[OutputFile]]
"""Divides what is written among files; tensors come in the order of the description."""


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
    tensors: Tensors = {}
    work: list[tuple[int, int, int, Lot, Sequence[str], Sequence[int]]] = []
    for lot in grouping.lots():
        infos = [source[name] for name in lot.sources]
        dtypes = _dtypes_of(lot, infos, dtype, faults)
        for numbers in lot.together:
            work.append((*_position(lot.forms[numbers[0]], infos), len(work), lot, dtypes, numbers))
            for number in numbers:
                what = dtypes[number], lot.forms[number].shape
                for name in lot.names[number]:
                    tensors[name] = what
    faults.raise_if_any("the plan does not hold")
    work.sort(key=itemgetter(0, 1, 2))

    def units() -> Iterator[Unit]:
        for count, (_, _, _, lot, dtypes, numbers) in enumerate(work):
            contents = []
            for number in numbers:
                form = lot.forms[number]
                sources = lot.sources_of(number)
                contents.append(Content(lot.names[number], dtypes[number], form.shape, form.copies, sources))
            yield Unit(count, tuple(contents))

    equal: list[tuple[Name, Name, int]] = []
    for kept, others in grouping.equal(replicas=replicas):
        if there := [other for other in others if other in source]:
            numel = source[kept].numel
            equal += [(kept, other, numel) for other in there]
    return Plan(tuple(files(tensors)), len(work), units, tuple(equal), left_out)


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
    missing, misshapen = [], []
    for name, shape in expected.items():
        info = source.get(name)
        if info is None:
            missing.append(name)
        elif info.shape != shape:
            misshapen.append((name, info.shape, shape))
    for name in sorted(missing):
        faults.add(f"missing: {shown(name)}", hint=words.missing)
    besides = {name for name in source if name not in expected}
    for name in sorted(besides - tolerated.repeats.keys() - left_out.keys()):
        if why := tolerated.passed_over(name):
            left_out[name] = why
        else:
            faults.add(f"{words.unknown}: {shown(name)}", hint=words.unknown_hint)
    for name, there, shape in misshapen:
        faults.add(
            f"{shown(name)} has the shape {list(there)}, expected {list(shape)} from {words.shape}",
            hint=words.shape_hint,
        )
    for name, of in tolerated.repeats.items():
        info, primary = source.get(name), source.get(of)
        if info and primary and (info.shape, info.dtype) != (primary.shape, primary.dtype):
            faults.add(f"{shown(name)} repeats {shown(of)} and has another shape or dtype")
    faults.raise_if_any(words.message)
    return left_out


def _dtypes_of(lot: Lot, infos: Sequence[TensorInfo], asked: str | None, faults: Faults) -> list[str]:
    """The dtype that each target of a lot gets: its sources', unless another was asked for."""
    asked = None if lot.keeps_dtype else asked
    every = {info.dtype for info in infos}
    if (one := _dtype_of(every, asked)) is not None:
        return [one] * len(lot.forms)
    dtypes = []
    for number, form in enumerate(lot.forms):
        found = {infos[wanted].dtype for wanted in form.wanted} or every
        if (one := _dtype_of(found, asked)) is None:
            first, *rest = map(shown, lot.sources_of(number) or lot.sources)
            faults.add(
                f"{shown(lot.names[number][0])} is made from tensors of different dtypes ({', '.join(sorted(found))}), "
                f"{first} and {len(rest)} others",
                hint="--dtype converts all of them to one.",
            )
        dtypes.append(one or min(found))
    return dtypes


def _dtype_of(found: Set[str], asked: str | None) -> str | None:
    """The dtype that is made of some; None where they are different and not converted."""
    if asked and found <= FLOATS:
        return asked
    return min(found) if len(found) == 1 else None


def _position(form: Form, infos: Sequence[TensorInfo]) -> tuple[int, int]:
    """Where the first source of a target lies, in bytes."""
    if form.first is None:
        return (-1, -1)
    number, element = form.first
    info = infos[number]
    return info.file, info.offset + element * ITEM_SIZES[info.dtype]
