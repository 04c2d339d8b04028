"""What a word that is not known may have been meant to be."""

from __future__ import annotations

from collections.abc import Iterable

_ALIKE = 0.65
"""Of 1: lower takes `--only` for a neighbour of `--tp`, higher misses two letters exchanged in a short word."""

_NEARLY = 0.05
"""A choice that is less like the word than the best one by more than this is not what was meant."""


def nearest(word: str, choices: Iterable[str], limit: int = 2) -> list[str]:
    """The choices that are most like a word, the best first; empty where none is.

    Case, `-` and `_` don't count; a choice that begins with the word, or the word with it, is like it.
    """
    wanted = _plain(word)
    if not wanted:
        return []
    scored = sorted((-_likeness(wanted, _plain(choice)), choice) for choice in dict.fromkeys(choices))
    enough = max(_ALIKE, -scored[0][0] - _NEARLY) if scored else _ALIKE
    return [choice for score, choice in scored if -score >= enough][:limit]


def _likeness(wanted: str, choice: str) -> float:
    from difflib import SequenceMatcher

    ratio = SequenceMatcher(None, wanted, choice, autojunk=False).ratio()
    shorter, longer = sorted((wanted, choice), key=len)
    is_start = len(shorter) >= 3 and longer.startswith(shorter)
    return max(ratio, _ALIKE) if is_start else ratio


def _plain(word: str) -> str:
    return word.strip("-").lower().replace("_", "-")


def did_you_mean(word: str, choices: Iterable[str]) -> str | None:
    """The question that a hint begins with, or None where nothing is like the word."""
    found = nearest(word, choices)
    return f"Did you mean {' or '.join(found)}?" if found else None
