"""The errors of the source code, read from it without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mscvt

SOURCE = Path(mscvt.__file__).parent
GAP = "\0"
"""Stands for what is known only when the error is made."""
LEAST = 6
"""Letters of fixed text that a message has at least; others pass on what another message says."""


class Message(NamedTuple):
    """One message, with a gap for each value in it."""

    where: str
    text: str

    @property
    def shown(self) -> str:
        return f"{self.where}: {self.text.replace(GAP, '...')}"


def messages() -> list[Message]:
    """Every message and fault that an error of the core may be made of."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        where = path.relative_to(SOURCE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _makes_error(node.func):
                for part in [*node.args[:1], *(word.value for word in node.keywords if word.arg in _SAID)]:
                    found += [Message(where, text) for text in _texts(part) if _letters(text) >= LEAST]
    return found


_SAID = ("message", "unknown")
"""Keywords of the planner's words that end up in messages."""


def _makes_error(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id in ("MscvtError", "UsageError", "Words")
    if not isinstance(function, ast.Attribute):
        return False
    return function.attr == "raise_if_any" or (function.attr == "add" and "faults" in ast.unparse(function.value))


def _texts(node: ast.expr) -> Iterator[str]:
    """The text of an expression; both of them where it depends on a condition."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        parts = node.values
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in parts)
    elif isinstance(node, ast.Subscript):  # cut off after so many characters
        yield from _texts(node.value)
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)
    elif isinstance(node, ast.BinOp):
        for left in _texts(node.left):
            for right in _texts(node.right):
                yield left + right
    else:
        yield GAP


def _letters(text: str) -> int:
    return sum(character.isalpha() for character in text)


def matches(quote: str, message: Message) -> bool:
    """Whether a quote, with `...` for what differs, is part of a message."""
    at = 0
    for part in filter(None, quote.split("...")):
        at = message.text.find(part.strip(), at)
        if at < 0:
            return False
        at += len(part.strip())
    return True
