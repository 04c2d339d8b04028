"""Lines of text whose parts have styles; a style is a word, and what a terminal makes of it is not known here."""

from __future__ import annotations

from typing import NamedTuple

HEADING, ASIDE, WARNING = "heading", "aside", "warning"
"""Styles, besides the kinds of cells of a pipeline (`views/pipeline.py`)."""


class Part(NamedTuple):
    """A part of a line."""

    text: str
    style: str = ""


Line = tuple[Part, ...]


def text_line(text: str = "", style: str = "") -> Line:
    """A line of one part."""
    return (Part(text, style),)


def length(line: Line) -> int:
    """How many columns a line takes."""
    return sum(len(part.text) for part in line)
