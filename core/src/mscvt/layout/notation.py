"""The notation for one side of a layout: named axes in memory order.

    (group slot channel) hidden                         three axes are the rows, one the columns
    (group slot[queries] channel) hidden                of the axis `slot` only the index `queries`
    (head qk[:nope]) rank                               of the axis `qk` only the first `nope`
    (head dim) hidden | (state[0] n) hidden             runs of rows with axes of their own, stacked

Each word is an axis, whose size has the same name; `[...]` says which part of the axis the tensor holds, in sums and
products of sizes (`queries + 1`, `2 * kd`). A word alone or a `(group of words)` is a dimension, and so is `1`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from math import prod

from mscvt.errors import MscvtError
from mscvt.records import dataclass

_TOKEN = re.compile(r"\s*(?:(?P<word>[A-Za-z_]\w*)(?P<range>\[[^\[\]]*\])?|(?P<mark>[()|])|(?P<one>1)(?!\w))")
_TERM = re.compile(r"\s*(?:[A-Za-z_]\w*|\d+)\s*(?:\*\s*(?:[A-Za-z_]\w*|\d+)\s*)*")


@dataclass(frozen=True, slots=True)
class Span:
    """An axis, or the part of it that a tensor holds."""

    axis: str
    start: str = "0"
    stop: str = ""
    """Empty for the axis' end."""


Groups = tuple[tuple[Span, ...], ...]
"""The dimensions of a run of rows, each a group of axes; an empty group is a dimension of size 1."""


class _Reader:
    """Reads one pattern from left to right; says where it is wrong."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.position = 0

    def wrong(self, what: str, at: int | None = None) -> MscvtError:
        place = self.position if at is None else at
        return MscvtError(
            f"layout {self.pattern!r}, at character {place + 1}: {what}",
            hint="A layout is a list of axes and (groups of axes), such as '(group slot[:queries] channel) hidden'.",
        )

    def tokens(self) -> list[tuple[int, re.Match[str]]]:
        found = []
        text = self.pattern.rstrip()
        while self.position < len(text):
            match = _TOKEN.match(text, self.position)
            if match is None:
                rest = text[self.position :].lstrip()
                at = len(text) - len(rest)
                what = f"{rest[0]!r} means nothing here"
                if rest[0] == "[":
                    why = "does not follow an axis, or has brackets in it" if "]" in rest else "is not closed"
                    what = f"the part {rest!r} {why}"
                raise self.wrong(what, at)
            found.append((match.end() - len(match[0].lstrip()), match))
            self.position = match.end()
        return found

    def segments(self) -> tuple[Groups, ...]:
        segments: list[list[tuple[Span, ...]]] = [[]]
        group: list[Span] | None = None
        opened = 0
        for at, token in self.tokens():
            mark = token["mark"]
            if mark == "(":
                if group is not None:
                    raise self.wrong("a group inside of a group", at)
                group, opened = [], at
            elif mark == ")":
                if not group:
                    raise self.wrong("an empty group" if group is not None else "no group is open here", at)
                segments[-1].append(tuple(group))
                group = None
            elif mark == "|":
                if group is not None or not segments[-1]:
                    raise self.wrong(
                        "no rows before it" if group is None else "a run of rows ends in the middle of a group", at
                    )
                segments.append([])
            elif token["one"]:
                if group is not None:
                    raise self.wrong("1 is a dimension of its own, not part of a group", at)
                segments[-1].append(())
            else:
                span = self.span(token["word"], token["range"], at)
                if span.axis in {other.axis for one in segments[-1] for other in one} | {s.axis for s in group or ()}:
                    raise self.wrong(f"the axis {span.axis!r} is there twice", at)
                if group is None:
                    segments[-1].append((span,))
                else:
                    group.append(span)
        if group is not None:
            raise self.wrong("the group that is opened here is never closed", opened)
        if not segments[-1]:
            raise self.wrong("no axes" if len(segments) == 1 else "no rows after it", len(self.pattern) - 1)
        if len({len(groups) for groups in segments}) > 1:
            raise self.wrong("its runs of rows have unequal numbers of dimensions", 0)
        return tuple(tuple(groups) for groups in segments)

    def span(self, axis: str, part: str | None, at: int) -> Span:
        if part is None:
            return Span(axis)
        start, colon, stop = part[1:-1].partition(":")
        for text in (start, stop):
            if text.strip() and not all(_TERM.fullmatch(term) for term in text.split("+")):
                raise self.wrong(f"{text.strip()!r} is no sum of sizes", at + len(axis))
        if not colon:
            if not start.strip():
                raise self.wrong("an empty part", at + len(axis))
            return Span(axis, start.strip(), f"{start.strip()} + 1")
        return Span(axis, start.strip() or "0", stop.strip())


@cache
def parse(pattern: str) -> tuple[Groups, ...]:
    """Read a pattern: one tuple of groups for each run of rows.

    >>> parse("(group slot[:queries])")
    (((Span(axis='group', start='0', stop=''), Span(axis='slot', start='0', stop='queries')),),)

    Raises:
        MscvtError: Where it is not in the notation; says what is wrong and where.
    """
    return _Reader(pattern).segments()


def axes_of(pattern: str) -> frozenset[str]:
    """All axes of a pattern.

    Raises:
        MscvtError: Where it is not in the notation.
    """
    return frozenset(span.axis for groups in parse(pattern) for group in groups for span in group)


def evaluate(expression: str, sizes: Mapping[str, int]) -> int:
    """The value of a sum of products of sizes and numbers.

    >>> evaluate("2 * kd + 1", {"kd": 4})
    9

    Raises:
        MscvtError: Where it speaks of a size that is not there.
    """
    return sum(prod(_size(factor.strip(), sizes) for factor in term.split("*")) for term in expression.split("+"))


def _size(name: str, sizes: Mapping[str, int]) -> int:
    if name.isdigit():
        return int(name)
    value = sizes.get(name)
    if value is None:
        raise MscvtError(
            f"needs the size {name!r}, which the model's configuration doesn't give",
            hint="Add it to the model type's `fields`, or compute it in `sizes`.",
        )
    return value
