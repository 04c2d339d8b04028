"""What is shown of a plan or a checkpoint as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mscvt.errors import printable
from mscvt.views.experts import ExpertPlace
from mscvt.views.files import FileGroup
from mscvt.views.lines import ASIDE, HEADING, Line, Part, length, text_line
from mscvt.views.pipeline import LETTERS, MEANINGS, Cell, Pipeline, Row, folded
from mscvt.views.preview import Preview, Side
from mscvt.views.sizes import counted, size_text

if TYPE_CHECKING:
    from mscvt.views.shard import Shard
    from mscvt.views.way import Way

_GAP = "  "


def preview_text(preview: Preview, width: int) -> Iterator[Line]:
    """A plan: the pipeline and the files, or the rank or tensor that was asked for.

    Args:
        preview: The plan.
        width: Columns of the terminal.
    """
    if preview.shard is not None:
        yield from _shard_text(preview.shard)
    for way, side in zip(preview.ways, preview.sides, strict=False):
        yield from _way_text(way, side)
    if preview.is_detail:
        return
    for side in preview.sides:
        yield from side_text(side, width, "of the source" if side.is_source else "of the result")
        yield text_line()
    yield from columns([group_cells(group) for group in preview.groups])
    space = ""
    if preview.free is not None:
        verdict = "enough" if preview.fits else "NOT enough"
        space = f"; {size_text(preview.free)} are free there, {verdict}"
    yield text_line(
        f"would write {counted(preview.files, 'file')}, {preview.nbytes:,} bytes ({size_text(preview.nbytes)}); "
        f"every byte is accounted for{space}"
    )


def side_text(side: Side, width: int, whose: str = "") -> Iterator[Line]:
    """The pipeline of a checkpoint, and where its experts lie."""
    pipeline = side.pipeline
    yield text_line(f"{f'pipeline {whose}'.rstrip()}: {pipeline.about}", HEADING)
    yield from _grid(pipeline, width)
    yield from _legend(pipeline, width)
    yield text_line("layer: the number in the keys of the shards; in the cells: the number in Hugging Face", ASIDE)
    if len(side.experts) > 1:
        yield text_line()
        yield from _experts(side.experts)


def _legend(pipeline: Pipeline, width: int) -> Iterator[Line]:
    """What the letters mean, in as many lines as it takes."""
    line: Line = ()
    for kind in pipeline.kinds:
        entry = Part(f" {LETTERS[kind]} ", kind), Part(f" {MEANINGS[kind]}")
        if line and length(line) + len(_GAP) + length(entry) > width:
            yield line
            line = ()
        line = (*line, Part(_GAP), *entry) if line else entry
    yield line


def _grid(pipeline: Pipeline, width: int) -> Iterator[Line]:
    """The stages across, in bands that fit into the width."""
    lines = [(_numbers(first, last), first, _cells(first, last)) for first, last in folded(pipeline)]
    chunk = max(len("chunk"), *(len(first.chunk) for _, first, _ in lines))
    layer = max(len("layer"), *(len(numbers) for numbers, _, _ in lines))
    cell = max(len(f"stage {pipeline.stages - 1}"), *(len(text) + 2 for _, _, texts in lines for text in texts))
    each = max(1, (width - chunk - layer - len(_GAP)) // (cell + len(_GAP)))
    for start in range(0, pipeline.stages, each):
        stages = range(start, min(start + each, pipeline.stages))
        head = "".join(f"{_GAP}{f'stage {stage}':<{cell}}" for stage in stages)
        yield text_line(f"{'chunk':<{chunk}}{_GAP}{'layer':<{layer}}{head}".rstrip(), ASIDE)
        before = ""
        for numbers, row, texts in lines:
            if not any(texts[stage] for stage in stages):
                continue
            parts = [Part(f"{row.chunk if row.chunk != before else '':<{chunk}}{_GAP}{numbers:<{layer}}")]
            before = row.chunk
            for stage in range(start, max(stage for stage in stages if texts[stage]) + 1):
                there = row.cells[stage]
                parts.append(Part(_GAP))
                parts.append(Part(f" {texts[stage]:<{cell - 1}}", there.kind if there is not None else ""))
            yield tuple(parts)


def _numbers(first: Row, last: Row) -> str:
    return _span(first.number, last.number)


def _cells(first: Row, last: Row) -> list[str]:
    return [_cell(one, other) for one, other in zip(first.cells, last.cells, strict=True)]


def _cell(first: Cell | None, last: Cell | None) -> str:
    if first is None or last is None:
        return ""
    return f"{LETTERS[first.kind]} {_span(first.layer, last.layer)}".rstrip()


def _span(first: int | None, last: int | None) -> str:
    return "" if first is None else str(first) if first == last else f"{first}-{last}"


_SHOWN = 8
"""So many places of experts are shown one by one."""


def _experts(places: Sequence[ExpertPlace]) -> Iterator[Line]:
    shown = [
        (f"experts {_span(place.first, place.last)}", ", ".join(place.ranks))
        for place in (places if len(places) <= _SHOWN else [*places[: _SHOWN - 2], places[-1]])
    ]
    if len(places) > _SHOWN:
        shown.insert(-1, ("...", ""))
    yield from columns(shown)


def group_cells(group: FileGroup) -> tuple[str, ...]:
    """A line of the list of files."""
    low, high = group.nbytes
    each = size_text(low) if low == high else f"{size_text(low)} to {size_text(high)}"
    few, many = group.tensors
    tensors = counted(many, "tensor") if few == many else f"{few} to {many} tensors"
    if group.count == 1:
        return group.paths, "1 file", tensors, f"{group.total:,} bytes", ""
    return group.paths, counted(group.count, "file"), f"{tensors} each", f"{each} each", f"{group.total:,} bytes"


def _shard_text(shard: Shard) -> Iterator[Line]:
    from mscvt.views.shard import rank_text

    yield text_line(
        f"rank {rank_text(shard.rank)}: {counted(shard.tensors, 'tensor')}, {shard.nbytes:,} bytes", HEADING
    )
    lines: list[tuple[str, ...]] = []
    for row in shard.rows:
        first, *others = row.sources or ("",)
        lines.append((row.chunk, row.keys, str(list(row.shape)), row.dtype, f"x{row.count}", f"<- {first}"))
        lines += [("", "", "", "", "", f"   {other}") for other in others]
    yield from columns(lines)


def _way_text(way: Way, side: Side) -> Iterator[Line]:
    repeats = f", which repeats {way.of}" if way.of else ""
    verb = "is made of" if side.is_source else "goes to"
    yield text_line(
        f"{way.name}{repeats}: {way.role}, {list(way.shape)}, "
        f"{f'cut by {way.cut}' if way.cut else 'not cut, whole on every rank that has it'}; {verb}",
        HEADING,
    )
    yield from columns(
        [
            (
                f"{way.name}{stop.region}" if stop.region else "all of it",
                "<-" if side.is_source else "->",
                ", ".join(stop.ranks),
                stop.chunk,
                f"{stop.key} {list(stop.shape)}",
                f"at {stop.place}" if stop.place.startswith("[") else stop.place,
            )
            for stop in way.stops
        ]
    )


def columns(lines: Sequence[Sequence[str]]) -> Iterator[Line]:
    """Lines of cells, in columns that are as wide as they have to be; text may be hostile."""
    escaped = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*escaped, strict=True)] if escaped else []
    for line in escaped:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True) if width)
        yield text_line(_GAP.join(padded).rstrip())
