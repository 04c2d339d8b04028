"""What the commands of a shell script would be given, as far as its text alone tells; nothing is executed.

Known is what launch scripts are made of: assignments, `+=`, arrays, quotes, `${X:-default}`, continuations, comments.
Whatever else a word holds (a command's output, arithmetic, a variable that the script doesn't set, or sets only under a
condition) stays in it as a mark, with the text that it came from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mscvt.cli.shell_calls import MARK, Call, Script
from mscvt.errors import MscvtError

_NAME = re.compile(r"[A-Za-z_]\w*|[0-9@*#?$!-]", re.ASCII)
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\+?)=", re.ASCII)
_BRACED = re.compile(r"([A-Za-z_]\w*|[0-9]+|[@*])(\[[@*]\]|)(:?[-=]|)", re.ASCII)
_DECLARING = frozenset({"export", "local", "declare", "readonly", "typeset"})
_OPENING = frozenset({"if", "for", "while", "until", "case", "select", "{"})
_CLOSING = frozenset({"fi", "done", "esac", "}"})
_BETWEEN = frozenset({"then", "else", "elif", "do", "!", "time"})
ADDED = "what is added to"
"""Begins what is said of a mark that stands for more than the words around it show."""
_WANTED = "Give the shell script that starts training, with the options in it."
MOST = 1 << 18
"""Characters of a script, and of all values that are put into its words."""
_PLAIN = re.compile(r"[^\s;&|()<>'\"\\$`]+")
"""Characters that mean nothing but themselves, inside of quotes and outside."""


def read_script(text: str) -> Script:
    """Read the text of a script.

    Raises:
        MscvtError: Where a quote or a bracket is not closed, or it is no text of a sensible length.
    """
    if len(text) > MOST or MARK in text:
        raise MscvtError("is no shell script", hint=_WANTED)
    reader = _Reader(text.replace("\r\n", "\n"))
    try:
        reader.read_calls()
    except RecursionError:  # values in values in values
        raise MscvtError("is no shell script", hint=_WANTED) from None
    return Script(tuple(reader.calls), tuple(reader.unknown))


@dataclass
class _Reader:
    text: str
    at: int = 0
    depth: int = 0
    """How many conditions and loops are open."""
    is_chained: bool = False
    """Whether the command runs only as another one has ended."""
    values: dict[str, list[str]] = field(default_factory=dict)
    """Variable -> its values; one where it is no array."""
    calls: list[Call] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    spent: int = 0
    """Characters of values that were put into words."""

    def read_calls(self) -> None:
        """Read to the end."""
        words: list[str] = []
        before: dict[str, list[str] | None] = {}
        line, counted, is_empty, is_loop = 1, 0, True, False
        while self._skip_blanks():
            if not words:
                line, counted = line + self.text.count("\n", counted, self.at), self.at
            if self._sees("<") or self._sees(">"):
                if words and self.text[self.at - 1].isdigit():
                    words.pop()  # which stream it is
                self._pass_redirection()
                continue
            if self.text[self.at] in "\n;&|()":
                self.is_chained = self._sees("&&") or self._sees("||") or (self.is_chained and is_empty)
                self.at += 1
                self._end(line, words)
                words, before, is_empty, is_loop = [], {}, True, False
                continue
            is_empty = False
            found = _ASSIGNMENT.match(self.text, self.at)
            if found and (not words or words[0] in _DECLARING):
                self.at = found.end()
                if not words:
                    before.setdefault(found[1], self.values.get(found[1]))
                is_array = self._sees("(")
                fields = self._array() if is_array else self._word(splits=False) or [""]
                self._assign(found[1], fields, is_added=bool(found[2]), is_array=is_array)
                continue
            for name, values in before.items():  # a command is told what is before it, its words are not made of that
                if values is None:
                    self.values.pop(name, None)
                else:
                    self.values[name] = values
            before = {}
            begin = self.at
            fields = self._word()
            raw = self.text[begin : self.at]
            if is_loop:
                self.values[raw] = [self._mark(f"${raw}, which a loop sets")]
            is_loop = not words and raw in ("for", "select")
            if not words and raw in _OPENING | _CLOSING | _BETWEEN:
                self.depth = max(0, self.depth + (raw in _OPENING) - (raw in _CLOSING))
            else:
                words += fields
        self._end(line, words)

    def _end(self, line: int, words: list[str]) -> None:
        if words:
            self.calls.append(Call(line, tuple(words)))

    def _skip_blanks(self) -> bool:
        """Go to the next word or sign; false at the end."""
        while self.at < len(self.text):
            if self._sees("\\\n"):
                self.at += 2
            elif self._sees("#"):
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif self.text[self.at] in " \t":
                self.at += 1
            else:
                return True
        return False

    def _pass_redirection(self) -> None:
        while self.text[self.at : self.at + 1] in ("<", ">", "&"):
            self.at += 1
        if self._skip_blanks():
            self._word()

    def _sees(self, what: str) -> bool:
        return self.text.startswith(what, self.at)

    def _assign(self, name: str, fields: list[str], *, is_added: bool, is_array: bool) -> None:
        before = self.values.get(name, [])
        if self.depth or self.is_chained:
            if fields == before:
                return
            if is_added:
                fields = [f" {self._mark(f'{ADDED} ${name} under a condition')}"]
            else:
                fields = [self._mark(f"${name}, which is set under a condition")]
        if is_added and before:
            fields = [*before, *fields] if is_array else [before[0] + fields[0], *before[1:]]
        self.values[name] = fields

    def _array(self) -> list[str]:
        start, self.at = self.at, self.at + 1
        fields: list[str] = []
        while self._skip_blanks():
            if self._sees(")"):
                self.at += 1
                return fields
            if self.text[self.at] in "\n;&|<>(":
                self.at += 1
            else:
                fields += self._word()
        raise self._unclosed("(", start)

    def _word(self, *, splits: bool = True) -> list[str]:
        """The fields that a word becomes, none where it is an empty variable."""
        fields: list[str] = []
        current: str | None = None
        while self.at < len(self.text) and self.text[self.at] not in " \t\n;&|()<>":
            char = self.text[self.at]
            if char == "'":
                current = (current or "") + self._up_to("'")
            elif char == '"':
                first, *others = self._quoted()
                current = (current or "") + first
                if others:
                    fields += [current, *others[:-1]]
                    current = others[-1]
            elif char == "\\":
                current = (current or "") + self.text[self.at + 1 : self.at + 2].strip("\n")
                self.at += 2
            elif char in "$`":
                value = " ".join(self._expanded())
                if not splits:
                    current = (current or "") + value
                    continue
                parts = value.split()
                if current is not None and value[:1].isspace():
                    fields.append(current)
                    current = None
                if parts:
                    parts[0] = (current or "") + parts[0]
                    fields += parts[:-1]
                    current = parts[-1]
                if current is not None and value[-1:].isspace():
                    fields.append(current)
                    current = None
            else:
                current = (current or "") + self._plain(char)
        return fields if current is None else [*fields, current]

    def _quoted(self) -> list[str]:
        """What stands between double quotes: one field, or more where an array does."""
        start, self.at = self.at, self.at + 1
        fields = [""]
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                return fields
            if char in "$`":
                values = self._expanded()
                if values:
                    fields[-1] += values[0]
                    fields += values[1:]
                continue
            if char == "\\" and self.text[self.at + 1 : self.at + 2] in ("$", "`", '"', "\\", "\n"):
                fields[-1] += self.text[self.at + 1].strip("\n")
                self.at += 2
                continue
            fields[-1] += self._plain(char)
        raise self._unclosed('"', start)

    def _plain(self, char: str) -> str:
        """What stands up to the next sign, or a sign that means nothing here."""
        found = _PLAIN.match(self.text, self.at)
        self.at = found.end() if found else self.at + 1
        return found[0] if found else char

    def _expanded(self) -> list[str]:
        """The values of what begins with `$` or a backtick."""
        start = self.at
        if self._sees("`"):
            self._up_to("`")
        elif self._sees("$("):
            self._balanced("(", ")")
        elif self._sees("${"):
            self._balanced("{", "}")
            found = _BRACED.match(self.text, start + 2)
            rest = self.text[found.end() : self.at - 1] if found else ""
            if found and (found[3] or not rest):
                otherwise = rest if found[3] else None
                return self._value(found[1], is_all=bool(found[2]), otherwise=otherwise, is_kept="=" in found[3])
        elif found := _NAME.match(self.text, start + 1):
            self.at = found.end()
            return self._value(found[0])
        else:
            self.at += 1
            return ["$"]
        return [self._mark(self.text[start : self.at])]

    def _value(
        self, name: str, *, is_all: bool = False, otherwise: str | None = None, is_kept: bool = False
    ) -> list[str]:
        values = self.values.get(name)
        if otherwise is not None and not any(values or ()):
            text = otherwise if '"' in otherwise else f'"{otherwise}"'
            self._spend(len(text))
            inner = _Reader(text, values=self.values, unknown=self.unknown, spent=self.spent)
            values = inner._word(splits=False)
            self.spent = inner.spent
            if is_kept:
                self.values[name] = values
        if values is None:
            return [self._mark(f"${name}, which is not set there")]
        values = values if is_all else values[:1]
        self._spend(sum(map(len, values)) + len(values))
        return values

    def _spend(self, characters: int) -> None:
        self.spent += characters
        if self.spent > MOST:
            raise MscvtError(f"its values have more than {MOST} characters", hint="Is it a script for training?")

    def _mark(self, what: str) -> str:
        self.unknown.append(" ".join(what.split()))
        return f"{MARK}{len(self.unknown) - 1}{MARK}"

    def _up_to(self, quote: str) -> str:
        """What stands before the next quote; this one is passed, too."""
        start = self.at + 1
        end = self.text.find(quote, start)
        if end < 0:
            raise self._unclosed(quote, self.at)
        self.at = end + 1
        return self.text[start:end]

    def _balanced(self, opening: str, closing: str) -> None:
        """Pass what stands in brackets, others of their kind in it."""
        depth = 0
        for at in range(self.at, len(self.text)):
            depth += (self.text[at] == opening) - (self.text[at] == closing)
            if depth == 0 and self.text[at] == closing:
                self.at = at + 1
                return
        raise self._unclosed(opening, self.at)

    def _unclosed(self, what: str, at: int) -> MscvtError:
        line = self.text.count("\n", 0, at) + 1
        return MscvtError(f"line {line}: {what} is not closed", hint=_WANTED)
