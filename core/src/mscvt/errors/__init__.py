"""The one exception that leaves this package, and the collector that lets it name every fault."""

from __future__ import annotations

from collections.abc import Iterable

from mscvt.errors.folding import fold

_SHOWN = 100
"""Lines of faults that are shown; nobody reads more."""


def printable(text: object) -> str:
    r"""Text that may come from a file, with everything escaped that would move a terminal's cursor.

    >>> printable("a\x1b[2J")
    'a\\x1b[2J'
    """
    whole = str(text)
    if whole.isprintable():
        return whole
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole)


def shown(text: object, most: int = 200) -> str:
    """Text that comes from a file, printable and cut off after so many characters."""
    whole = str(text)
    return printable(whole if len(whole) <= most else whole[:most] + "...")


class MscvtError(Exception):
    """What is wrong, where, and what to do about it; names of files and tensors may be hostile, and are escaped.

    Attributes:
        message: What is wrong, in one line.
        faults: Every single fault found, each in one line, however many; empty where the message says it all.
        hint: What to do about it, or None.
    """

    def __init__(self, message: str, *, hint: str | None = None, faults: Iterable[str] = ()) -> None:
        self.message = printable(message)
        self.faults = tuple(map(printable, faults))
        self.hint = None if hint is None else printable(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return "\n".join([self.message, *self.fault_lines()])

    def fault_lines(self) -> list[str]:
        """The faults as they are shown: folded, and not more of them than anybody reads."""
        lines = fold(self.faults)
        shown = [f"  - {line}" for line in lines[:_SHOWN]]
        return shown if len(lines) <= _SHOWN else [*shown, f"  - ... and {len(lines) - _SHOWN} more lines like these"]


class Faults:
    """Gathers faults in the order they are found, each once, and raises them together."""

    def __init__(self) -> None:
        self._hints: dict[str, str | None] = {}

    def add(self, fault: str, *, hint: str | None = None) -> None:
        """Note a fault, and what to do about it."""
        self._hints.setdefault(fault, hint)

    def __bool__(self) -> bool:
        return bool(self._hints)

    @property
    def found(self) -> list[tuple[str, str | None]]:
        """Every fault, with what to do about it."""
        return list(self._hints.items())

    def raise_if_any(self, message: str) -> None:
        """Raise all faults as one error.

        Raises:
            MscvtError: Where at least one fault was added.
        """
        if not self._hints:
            return
        faults = list(self._hints)
        hint = " ".join(dict.fromkeys(hint for hint in self._hints.values() if hint)) or None
        if len(faults) == 1:
            raise MscvtError(f"{message}: {faults[0]}", hint=hint)
        raise MscvtError(f"{message}: {len(faults)} faults", hint=hint, faults=faults)
