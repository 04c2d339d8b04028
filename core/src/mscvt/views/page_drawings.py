"""Drawings of tensors, as HTML with a picture for each tensor."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mscvt.errors import printable
from mscvt.views.drawing import Drawing, Drawn

_LONGEST, _SHORTEST = 100.0, 12.0
"""Pixels that the longest side of a drawing's tensors has, and the least that any has."""
_HUES = 8


def drawing_html(drawing: Drawing) -> str:
    """One rule: its Hugging Face tensors, an arrow, and what ranks hold."""
    every = (*drawing.sources, *drawing.shards)
    longest = max(max(drawn.rows, drawn.columns) for drawn in every)
    sources = "".join(_tensor(drawn, longest) for drawn in drawing.sources)
    shards = "".join(_tensor(drawn, longest, number) for number, drawn in enumerate(drawing.shards))
    more = f"<p>and {drawing.more} more ranks in the same way</p>" if drawing.more else ""
    roles = ", ".join(dict.fromkeys(drawing.roles))
    cut = f"cut by {drawing.cut}" if drawing.cut else "not cut"
    return (
        f'<figure><figcaption><h3>{_text(roles)}</h3><small><span class="mono">{_text(drawing.key)}</span><br>'
        f"{_text(cut)}</small></figcaption>"
        f'<div class="flow"><div class="group">{sources}</div><div class="arrow" aria-hidden="true">&rarr;</div>'
        f'<div class="group">{shards}{more}</div></div></figure>'
    )


def _tensor(drawn: Drawn, longest: int, share: int | None = None) -> str:
    """A picture to scale, except that nothing is too thin to be seen; name, shape and what goes where below."""
    height = max(_SHORTEST, _LONGEST * (drawn.rows / longest) ** 0.5)
    width = max(_SHORTEST, _LONGEST * (drawn.columns / longest) ** 0.5)
    down, across = height / max(drawn.rows, 1), width / max(drawn.columns, 1)
    rectangles = "".join(
        f'<rect class="r{part.share % _HUES} s{part.source % 4}" x="{part.column * across:.1f}" '
        f'y="{part.row * down:.1f}" width="{part.columns * across:.1f}" height="{part.rows * down:.1f}"/>'
        for part in drawn.parts
    )
    if not rectangles:
        kind = "whole" if share is None else f"r{share % _HUES}"
        rectangles = f'<rect class="{kind}" width="{width:.1f}" height="{height:.1f}"/>'
    shape = _shape(drawn.shape)
    label = f"{drawn.name} {shape}: {drawn.about}"
    below = _text(drawn.about) if share is not None else f'<span class="mono">{_text(_short(drawn.name))}</span>'
    return (
        f'<div class="tensor"><svg role="img" aria-label="{_text(label)}" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.1f} {height:.1f}">{rectangles}'
        f'<rect class="frame" width="{width:.1f}" height="{height:.1f}"/></svg>{below}<br>{shape}</div>'
    )


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _short(name: str) -> str:
    """The end of a name, which says what the tensor is."""
    words = name.removesuffix(".weight").split(".")
    return ".".join(words[-2:])


def _text(text: str) -> str:
    return escape(printable(text))
