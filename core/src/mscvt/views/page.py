"""A plan as one page: nothing is loaded from anywhere, and everything can be read without colours, script or mouse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from string import Template

from mscvt.errors import printable
from mscvt.views.drawing import Drawing
from mscvt.views.experts import ExpertPlace
from mscvt.views.files import FileGroup
from mscvt.views.page_drawings import drawing_html
from mscvt.views.pipeline import LETTERS, MEANINGS, Cell, Pipeline, Row
from mscvt.views.preview import Preview
from mscvt.views.shard import Shard, rank_text
from mscvt.views.sizes import size_text
from mscvt.views.way import Way

_TEMPLATES = ("page.html", "style.css", "script.js")


def page_text(
    preview: Preview,
    drawings: Sequence[Sequence[Drawing]],
    facts: Mapping[str, str],
    *,
    heading: str,
    about: str,
    version: str,
) -> str:
    """The page.

    Args:
        preview: The plan.
        drawings: For each side of the preview, the tensors to draw.
        facts: What is said at the top, by its name.
        heading: What is planned.
        about: One sentence on it.
        version: The program's.
    """
    folder = resources.files("mscvt") / "templates" / "plan"
    page, style, script = ((folder / name).read_text(encoding="utf-8") for name in _TEMPLATES)
    sections = [*_sections(preview, drawings)]
    shown = "\n".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts.items())
    links = "".join(f'<li><a href="#{mark}">{_text(title)}</a></li>' for mark, title, _ in sections)
    body = "\n".join(
        f'<section id="{mark}" aria-labelledby="{mark}-title">\n'
        f'<h2 id="{mark}-title">{_text(title)}</h2>\n{html}\n</section>'
        for mark, title, html in sections
    )
    return Template(page).substitute(
        title=_text(f"{heading} - mscvt plan"),
        style=style.strip(),
        script=script.strip(),
        heading=_text(heading),
        about=_text(about),
        facts=shown,
        links=f"<ul>{links}</ul>",
        body=body,
        version=_text(version),
    )


def _sections(preview: Preview, drawings: Sequence[Sequence[Drawing]]) -> Iterable[tuple[str, str, str]]:
    """Mark, title and content of each section."""
    for number, way in enumerate(preview.ways):
        title = f"The way of {way.name}{_of(preview, number)}"
        yield f"way-{number}", title, f"{_way(way)}\n{_cards(drawings[number])}"
    if preview.shard is not None:
        yield "rank", f"Rank {rank_text(preview.shard.rank)}", _shard(preview.shard)
    for number, side in enumerate(preview.sides):
        pipeline, what = side.pipeline, _of(preview, number)
        yield f"pipeline-{number}", f"Pipeline{what}", f"<p>{_text(pipeline.about)}</p>\n{_grid(pipeline, number)}"
        if len(side.experts) > 1:
            yield f"experts-{number}", f"Experts{what}", _experts(side.experts, number)
    yield "files", "Files", _files(preview.groups)
    for number, found in enumerate(drawings):
        if found and not preview.ways:
            yield f"tensors-{number}", f"Tensors and their cuts{_of(preview, number)}", _cards(found)


_HOW = """<p class="hint">Left the tensors of Hugging Face, right what ranks hold of them, in the same colours. Shades
tell apart what a rank's tensor is put together from.</p>
<div class="cards">"""


def _cards(drawings: Sequence[Drawing]) -> str:
    return f"{_HOW}\n{chr(10).join(map(drawing_html, drawings))}\n</div>"


def _of(preview: Preview, number: int) -> str:
    if len(preview.sides) < 2:
        return ""
    return " of the source" if preview.sides[number].is_source else " of the result"


def _grid(pipeline: Pipeline, number: int) -> str:
    heads = "".join(f'<th scope="col">stage<br>{stage}</th>' for stage in range(pipeline.stages))
    lines, before = [], ""
    for row in pipeline.rows:
        begins = row.chunk != before
        cells = "".join(
            f"<td>{_cell(cell, row, stage)}</td>" if cell else "<td></td>" for stage, cell in enumerate(row.cells)
        )
        layer = "" if row.number is None else row.number
        lines.append(
            f"<tr{_class('begins' if begins and before else '')}>"
            f'<th scope="row">{_text(row.chunk) if begins else ""}</th><th>{layer}</th>{cells}</tr>'
        )
        before = row.chunk
    legend = "".join(
        f'<li><span class="{kind}">{LETTERS[kind]}</span>{_text(MEANINGS[kind])}</li>' for kind in pipeline.kinds
    )
    return f"""<p class="hint">Stages across; chunks and the layers in them down. In a cell stands the layer's number in
Hugging Face, under &ldquo;layer&rdquo; the one that keys have in this chunk. Arrow keys move from cell to cell.</p>
<div class="scroll">
<table class="grid" role="grid" aria-label="Pipeline" data-pane="pane-{number}">
<thead><tr><th scope="col">chunk</th><th scope="col">layer</th>{heads}</tr></thead>
<tbody>
{chr(10).join(lines)}
</tbody>
</table>
</div>
<p class="pane" id="pane-{number}" role="status">Choose a cell to see what it is.</p>
<ul class="legend">{legend}</ul>"""


def _cell(cell: Cell, row: Row, stage: int) -> str:
    words = [MEANINGS[cell.kind]]
    if cell.layer is not None:
        words[0] += f" {cell.layer} of Hugging Face"
    if cell.blocks:
        words.append(" + ".join(cell.blocks))
    words += [f"stage {stage}", f"chunk {row.chunk}"]
    if row.number is not None:
        words.append(f"layer {row.number} in its keys, slot {cell.slot} of the pipeline")
    number = "" if cell.layer is None else f"<span>{cell.layer}</span>"
    return (
        f'<button type="button" class="cell {cell.kind}" aria-pressed="false" aria-label="{_text(", ".join(words))}">'
        f"<b>{LETTERS[cell.kind]}</b>{number}</button>"
    )


def _experts(places: Sequence[ExpertPlace], number: int) -> str:
    lines = "\n".join(
        f'<li data-ranks="{_text(", ".join(place.ranks))}"><h3>{_text(", ".join(place.ranks))}</h3>'
        f'<ul class="tiles">{"".join(f"<li>{e}</li>" for e in range(place.first, place.last + 1))}</ul></li>'
        for place in places
    )
    return f"""<p class="hint">The same on every stage that has layers with experts.</p>
<form><label for="expert-{number}">Where is expert</label>
<input id="expert-{number}" class="expert" type="number" min="0" max="{places[-1].last}" inputmode="numeric">
<output for="expert-{number}" role="status"></output></form>
<ul class="places">
{lines}
</ul>"""


def _files(groups: Sequence[FileGroup]) -> str:
    rows = []
    for group in groups:
        low, high = group.nbytes
        each = size_text(low) if low == high else f"{size_text(low)} to {size_text(high)}"
        few, many = group.tensors
        tensors = str(many) if few == many else f"{few} to {many}"
        rows.append((group.paths, f"{group.count:,}", tensors, each, f"{group.total:,}"))
    return _table(("path", "files", "tensors each", "bytes each", "bytes"), rows, numbers=4)


def _shard(shard: Shard) -> str:
    rows = [
        (row.chunk, row.keys, f"{list(row.shape)} {row.dtype}", "\n".join(row.sources), f"{row.nbytes:,}")
        for row in shard.rows
    ]
    return _table(("chunk", "keys", "shape", "made of", "bytes"), rows, numbers=1)


def _way(way: Way) -> str:
    about = f"{way.role}, {list(way.shape)}; " + (
        f"cut by {way.cut}." if way.cut else "whole on every rank that has it."
    )
    if way.of:
        about += f" It repeats {way.of}."
    rows = [
        (stop.region or "all of it", "\n".join(stop.ranks), stop.chunk, f"{stop.key} {list(stop.shape)}", stop.place)
        for stop in way.stops
    ]
    return f"<p>{_text(about)}</p>\n" + _table(("part", "ranks", "chunk", "their tensor", "there"), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """A table, whose last columns are numbers."""
    first = len(heads) - numbers
    head = "".join(
        f'<th scope="col"{_class("number" if i >= first else "")}>{_text(h)}</th>' for i, h in enumerate(heads)
    )
    lines = "\n".join(
        "<tr>"
        + "".join(
            f"<td{_class('number' if i >= first else 'mono')}>{'<br>'.join(map(_text, cell.splitlines()))}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f"""<div class="scroll"><table class="list">
<thead><tr>{head}</tr></thead>
<tbody>
{lines}
</tbody></table></div>"""


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _text(text: str) -> str:
    """Text that may come from a file, as HTML that shows it."""
    return escape(printable(text))
