"""What the value of an option may be, and how it is written as text.

A kind follows from the type of a field: `int | None` is a whole number, `tuple[int, ...] | None` a list of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NewType

from mscvt.records import dataclass

Bytes = NewType("Bytes", int)
"""A number of bytes, written with a unit where one is wanted: 65536, 64MiB, 1.5GB."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([kmgt]?)(i?)b?", re.IGNORECASE)
_POWERS: Mapping[str, int] = MappingProxyType({"": 0, "k": 1, "m": 2, "g": 3, "t": 4})


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value."""

    name: str
    """What it is, in an error: `expected <name>`."""
    example: str
    parse: Callable[[str], Any]
    """Text -> value; raises ValueError for what is none."""
    words: tuple[int, int | None] = (1, 1)
    """How many words of a command line it takes, at least and at most; None where there is no limit."""


def parse_whole(text: str) -> int:
    """A whole number in decimal digits; `int` alone would also take `1_0` and digits of other scripts.

    Raises:
        ValueError: Where the text is none.
    """
    if not _WHOLE.fullmatch(text.strip()):
        raise ValueError(text)
    return int(text)


def parse_list(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them.

    Raises:
        ValueError: Where the text is no such list.
    """
    return tuple(map(parse_whole, text.split(",")))


def parse_bytes(text: str) -> int:
    """A number of bytes: units are kB, MB, GB, TB of 1000, and KiB, MiB, GiB, TiB of 1024 bytes; B may be left out.

    Raises:
        ValueError: Where the text is no such number.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or (match[3] and not match[2]):
        raise ValueError(text)
    number, unit, binary = match.groups()
    scale = (1024 if binary else 1000) ** _POWERS[unit.lower()]
    return int(number) * scale if number.isdigit() else int(float(number) * scale)


def parse_path(text: str) -> Path:
    """A path.

    Raises:
        ValueError: Where the text is empty, which `Path` would take for the current folder, or can be no path.
    """
    if not text or "\0" in text:
        raise ValueError(text)
    return Path(text)


def parse_text(text: str) -> str:
    """Any text but an empty one.

    Raises:
        ValueError: Where the text is empty.
    """
    if not text:
        raise ValueError(text)
    return text


SWITCH = Kind("nothing: it is a switch", "", bool, (0, 0))
KINDS: Mapping[Any, Kind] = MappingProxyType(
    {
        bool: SWITCH,
        int: Kind("a whole number", "2", parse_whole),
        tuple[int, ...]: Kind("whole numbers with commas between them", "3,4,4,3", parse_list),
        str: Kind("a word", "name", parse_text),
        tuple[str, ...]: Kind("words", "one two", parse_text, (1, None)),
        Path: Kind("a path", "folder", parse_path),
        Bytes: Kind("a number of bytes", "64MiB", parse_bytes),
    }
)
"""Type of a field -> what its option takes."""


def shown(value: Any) -> str:
    """A value as a command line has it; lists are joined by commas, nothing is `none`."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return str(value)
