"""What is in a folder: rows, and text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from mscvt.errors import printable
from mscvt.errors.folding import fold
from mscvt.records import dataclass
from mscvt.tensors.info import TensorInfo
from mscvt.views.files import FileGroup
from mscvt.views.lines import HEADING, WARNING, Line, Part, text_line
from mscvt.views.names import NameTable, lines_of
from mscvt.views.preview import Side
from mscvt.views.sizes import count_text, counted, size_text
from mscvt.views.terminal import columns, group_cells, side_text

_LONGEST_ODD = 40
"""Lines on one kind of oddity that are shown."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """All tensors of one dtype."""

    dtype: str
    tensors: int
    elements: int
    nbytes: int


def weigh(tensors: Iterable[TensorInfo]) -> tuple[Weighed, ...]:
    """The dtypes that occur, the one with the most bytes first."""
    found: dict[str, list[int]] = {}
    for info in tensors:
        sums = found.setdefault(info.dtype, [0, 0, 0])
        for place, number in enumerate((1, info.numel, info.nbytes)):
            sums[place] += number
    rows = [Weighed(dtype, *sums) for dtype, sums in found.items()]
    return tuple(sorted(rows, key=lambda row: (-row.nbytes, row.dtype)))


@dataclass(frozen=True, slots=True)
class Finding:
    """Values that no weight should have."""

    what: str
    """`NaN`, `infinity` or `zero`."""
    name: str
    elements: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What reading every byte has found."""

    tensors: int
    nbytes: int
    seconds: float
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is in a folder."""

    folder: str
    kind: str
    """`huggingface`, `adapter`, or the dialect that the shards speak."""
    what: str
    """The same in words."""
    model_type: str | None
    parameters: int | None
    """Of the model, each once; None where nobody knows what model it is and ranks may hold the same."""
    facts: Mapping[str, str]
    """What else is recorded, by its name."""
    dtypes: tuple[Weighed, ...]
    """Of all tensors, on every rank."""
    groups: tuple[FileGroup, ...]
    nbytes: int
    """Of all files."""
    side: Side | None
    """Where layers and experts lie, for shards."""
    table: NameTable
    odd: tuple[str, ...]
    notes: tuple[str, ...]
    scan: Scan | None = None
    next: str = ""
    """What to do with it."""


def inspection_object(found: Inspection) -> dict[str, Any]:
    """The same, as `--json` shows it."""
    return {
        "folder": found.folder,
        "kind": found.kind,
        "what": found.what,
        "model_type": found.model_type,
        "parameters": found.parameters,
        "facts": dict(found.facts),
        "dtypes": [asdict(row) for row in found.dtypes],
        "groups": [asdict(group) for group in found.groups],
        "bytes": found.nbytes,
        "sides": [] if found.side is None else [asdict(found.side)],
        "rows": [asdict(row) for row in found.table.rows],
        "left_over": [asdict(row) for row in found.table.left_over],
        "missing": [asdict(row) for row in found.table.missing],
        "odd": list(found.odd),
        "scan": None if found.scan is None else asdict(found.scan),
        "notes": list(found.notes),
    }


def inspection_text(found: Inspection, width: int) -> Iterator[Line]:
    """What is in a folder, for people.

    Args:
        found: What was found.
        width: Columns of the terminal.
    """
    yield text_line(printable(f"{found.folder}: {found.what}"), HEADING)
    parameters = "unknown" if found.parameters is None else f"{count_text(found.parameters)} ({found.parameters:,})"
    dtypes = ", ".join(
        f"{row.dtype} {counted(row.tensors, 'tensor')} of {size_text(row.nbytes)}" for row in found.dtypes
    )
    files = sum(group.count for group in found.groups)
    yield from columns(
        [
            ("model type", found.model_type or "unknown"),
            ("parameters", parameters),
            ("dtypes", dtypes or "none"),
            ("files", f"{counted(files, 'file')}, {found.nbytes:,} bytes ({size_text(found.nbytes)})"),
            *found.facts.items(),
        ]
    )
    if found.side is not None:
        yield text_line()
        yield from side_text(found.side, width)
    yield text_line()
    yield from columns([group_cells(group) for group in found.groups])
    yield text_line()
    yield from (text_line(printable(line)) for line in lines_of(found.table))
    yield from _odd_text(found)


def _odd_text(found: Inspection) -> Iterator[Line]:
    lines = fold(found.odd)
    if lines or found.scan is not None:
        yield text_line()
    for line in lines[:_LONGEST_ODD]:
        yield Part("odd:", WARNING), Part(f" {printable(line)}")
    if len(lines) > _LONGEST_ODD:
        yield text_line(f"odd: ... and {len(lines) - _LONGEST_ODD} more lines like these")
    if found.scan is not None:
        yield from _scan_text(found.scan)
    elif not lines:
        yield text_line()
        yield text_line("nothing is odd, as far as headers tell; --scan reads the values")


def _scan_text(scan: Scan) -> Iterator[Line]:
    by_what: dict[str, list[Finding]] = {}
    for finding in scan.findings:
        by_what.setdefault(finding.what, []).append(finding)
    for what, findings in by_what.items():
        lines = fold([finding.name for finding in findings])
        for line in lines[:_LONGEST_ODD]:
            yield Part(f"{what}:", WARNING), Part(f" {printable(line)}")
        if len(lines) > _LONGEST_ODD:
            yield text_line(f"{what}: ... and {len(lines) - _LONGEST_ODD} more lines like these")
    verdict = "found nothing odd" if not scan.findings else f"found {counted(len(scan.findings), 'odd tensor')}"
    yield text_line(f"read {counted(scan.tensors, 'tensor')}, {scan.nbytes:,} bytes in {scan.seconds:.1f} s: {verdict}")
