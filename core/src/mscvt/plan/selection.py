"""`--only`: which output files a run writes, and how all of them are divided among runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from mscvt.errors import MscvtError, shown
from mscvt.plan.contents import OutputFile

_TERM = re.compile(r"([a-z]+)=(\d{1,18})(?:-(\d{1,18}))?")

Ranges = Mapping[str, tuple[int, int]]
"""Label -> the first and the last of its values."""


def select_files(files: Sequence[OutputFile], only: str | None) -> list[OutputFile]:
    """The files that match an expression like `pp=0,ep=4-7`; all of them for None.

    Raises:
        MscvtError: Where it can't be understood, names what the files don't have, or matches nothing.
    """
    chosen = _matching(files, _ranges(files, only))
    if not chosen and only is not None:
        raise MscvtError(f"--only {only}: matches none of the {len(files)} files of the output", hint=_hint(files))
    return chosen


def _labels(files: Sequence[OutputFile]) -> list[str]:
    return sorted({label for file in files for label in file.labels})


def _hint(files: Sequence[OutputFile]) -> str:
    return f"Write it like {'pp=3 or pp=0,ep=4-7' if 'pp' in _labels(files) else 'file=1 or file=2-5'}."


def _ranges(files: Sequence[OutputFile], only: str | None) -> dict[str, tuple[int, int]]:
    """What an expression asks for.

    Raises:
        MscvtError: Where it can't be understood, or names what the files don't have.
    """
    known = _labels(files)
    ranges: dict[str, tuple[int, int]] = {}
    for term in [] if only is None else only.replace(" ", "").split(","):
        match = _TERM.fullmatch(term)
        if match is None or match[1] not in known or match[1] in ranges:
            raise MscvtError(
                f"--only {shown(only)}: can't understand {shown(repr(term))}; known are {', '.join(known)}",
                hint=_hint(files),
            )
        ranges[match[1]] = (int(match[2]), int(match[3] or match[2]))
    return ranges


def _matching(files: Sequence[OutputFile], ranges: Ranges) -> list[OutputFile]:
    return [file for file in files if all(low <= file.labels[label] <= high for label, (low, high) in ranges.items())]


_DIVIDED: Mapping[str, int] = {"pp": 2, "file": 2, "ep": 1}
"""Label by which work is divided -> parts for each place that there is room for. Stages and files on the way back have
nothing in common that is read, so there may be more parts than places, and a slow place gets fewer of them. What all
expert ranks hold is read once for each part. Tensor ranks are never apart: each of them reads some of every row."""


def divide_files(files: Sequence[OutputFile], only: str | None, places: int) -> list[str | None]:
    """Divide the files that match an expression into parts that can be written at the same time.

    Args:
        files: All files of the output.
        only: The expression; None for all files.
        places: How many parts can be at work at the same time.

    Returns:
        An expression for each part, in the order of what they select; None alone where there is nothing to divide.
    """
    parts: list[Ranges] = [_ranges(files, only)]
    for label, each in _DIVIDED.items():
        if label in _labels(files):
            pieces = -(-places * each // len(parts))
            parts = [narrower for part in parts for narrower in _divided(files, part, label, pieces)]
    return [_expression(part) for part in parts]


def _divided(files: Sequence[OutputFile], part: Ranges, label: str, pieces: int) -> Iterator[Ranges]:
    """A part in pieces along a label, as equal as its values allow."""
    values = sorted({file.labels[label] for file in _matching(files, part)})
    count = min(pieces, len(values))
    if count < 2:
        yield part
        return
    bounds = [len(values) * number // count for number in range(count + 1)]
    for first, end in pairwise(bounds):
        yield {**part, label: (values[first], values[end - 1])}


def _expression(ranges: Ranges) -> str | None:
    terms = (f"{label}={low}" if low == high else f"{label}={low}-{high}" for label, (low, high) in ranges.items())
    return ",".join(terms) or None
