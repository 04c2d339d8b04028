"""What a shell script calls: words, in which marks stand for what its text alone does not tell."""

from __future__ import annotations

from mscvt.records import dataclass

MARK = "\0"
"""Stands on both sides of the number of what is unknown."""


@dataclass(frozen=True, slots=True)
class Call:
    """One command of a script."""

    line: int
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """What a script calls."""

    calls: tuple[Call, ...]
    unknown: tuple[str, ...]
    """What marks stand for."""

    def unknown_in(self, word: str) -> list[str]:
        """What is unknown in a word."""
        return [self.unknown[int(number)] for number in word.split(MARK)[1::2]]

    def is_unknown(self, word: str) -> bool:
        """Whether nothing of a word is known."""
        return word.count(MARK) == 2 and word.startswith(MARK) and word.endswith(MARK)
