"""Lines of text on a terminal, in colours where it has any.

Every colour has a letter beside it, so that nothing is lost without them.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from mscvt.cli.screen import BLACK, YELLOW, say, shows_colours, styled
from mscvt.views.lines import ASIDE, HEADING, WARNING, Line
from mscvt.views.pipeline import DENSE, EMBEDDING, EXPERTS, HEAD, NOOP, NORM, OTHER, PREDICTION

_BACKGROUNDS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        EMBEDDING: (0x9F, 0xDB, 0xE6),
        DENSE: (0xA9, 0xC8, 0xF7),
        EXPERTS: (0xA7, 0xDC, 0xAE),
        PREDICTION: (0xDC, 0xB9, 0xEE),
        NORM: (0xF4, 0xDD, 0x8F),
        HEAD: (0xF5, 0xB3, 0xA6),
        OTHER: (0xD5, 0xD7, 0xDC),
    }
)
"""Style -> red, green and blue of what black letters stand on."""
_LOOKS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        HEADING: {"bold": True},
        ASIDE: {"dim": True},
        NOOP: {"dim": True},
        WARNING: {"bold": True, "colour": YELLOW},
    }
)
"""Style -> arguments of `styled`."""
_STEPS = (0, 95, 135, 175, 215, 255)
"""How much red, green or blue the usual 6 * 6 * 6 colours have, as xterm defines them."""


def print_lines(lines: Iterable[Line]) -> None:
    """Print lines as they are, whatever the terminal's width."""
    is_coloured = shows_colours(sys.stdout)
    for line in lines:
        say("".join(_styled(*part) if is_coloured else part.text for part in line))


def columns() -> int:
    """How wide the terminal is, or 80 where stdout is none; COLUMNS says otherwise."""
    return shutil.get_terminal_size().columns


def _styled(text: str, style: str) -> str:
    if style in _BACKGROUNDS:
        return styled(text, colour=BLACK, background=_shown(_BACKGROUNDS[style]))
    return styled(text, **_LOOKS[style]) if style else text


def _shown(colour: tuple[int, int, int]) -> tuple[int, int, int] | int:
    """A colour where the terminal says that it shows all of them, or else the nearest of the usual 6 * 6 * 6."""
    if os.environ.get("COLORTERM") in ("truecolor", "24bit"):
        return colour
    red, green, blue = (min(range(6), key=lambda step: abs(_STEPS[step] - part)) for part in colour)
    return 16 + 36 * red + 6 * green + blue
