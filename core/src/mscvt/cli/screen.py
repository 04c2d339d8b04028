"""Writing lines, and the codes of colours. typer has the same, and takes 45 ms to load."""

from __future__ import annotations

import os
import sys
from typing import TextIO

BLACK, RED, YELLOW, CYAN = 30, 31, 33, 36
"""Codes of letters' colours: https://en.wikipedia.org/wiki/ANSI_escape_code."""
Background = int | tuple[int, int, int]
"""One of 256 colours, or red, green and blue."""


def say(line: str, *, to: TextIO | None = None) -> None:
    """Write a line at once, so that what stdout and stderr say stands in the order in which it was said.

    Args:
        line: A line, without its end.
        to: Where to; stdout by default.
    """
    stream = sys.stdout if to is None else to
    stream.write(f"{line}\n")
    stream.flush()


def styled(
    text: str, *, colour: int | None = None, background: Background | None = None, bold: bool = False, dim: bool = False
) -> str:
    """A text with the codes that give it a look, and take it back behind it."""
    codes = [] if colour is None else [str(colour)]
    if background is not None:
        codes.append(f"48;5;{background}" if isinstance(background, int) else "48;2;{};{};{}".format(*background))
    codes += ["1"] * bold + ["2"] * dim
    return "".join(f"\x1b[{code}m" for code in codes) + f"{text}\x1b[0m"


def shows_colours(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colours, and NO_COLOR is not set (https://no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()
