"""The one exception that leaves this package, and the collector that lets it name every fault."""

from __future__ import annotations

from collections.abc import Iterable

from mscvt.folding import fold

_SHOWN = 100
"""Lines of faults that are shown; nobody reads more."""


class MscvtError(Exception):
    """What is wrong, where, and what to do about it.

    Attributes:
        message: What is wrong, in one line.
        faults: Every single fault found, each in one line, however many; empty where the message says it all.
        hint: What to do about it, or None.
    """

    def __init__(self, message: str, *, hint: str | None = None, faults: Iterable[str] = ()) -> None:
        self.message = message
        self.faults = tuple(faults)
        self.hint = hint
        super().__init__(message)

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
