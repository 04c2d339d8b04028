"""How far a run is, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import field
from typing import TYPE_CHECKING, TextIO

from mscvt.records import dataclass
from mscvt.views.sizes import size_text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SECONDS = 60.0
"""Between two lines in a log."""

Started = Callable[[str, int], None]
"""Called when a phase begins: what it is, and how many bytes it will move, or 0."""
Moved = Callable[[int], None]
"""Called when so many bytes more were moved, from any thread."""


@contextmanager
def show_progress(phase: str, *, wanted: bool = True) -> Iterator[tuple[Started, Moved]]:
    """Give the callbacks that begin a phase and that count its bytes, and begin the first one."""
    if not wanted:
        yield (lambda what, nbytes: None), (lambda nbytes: None)
    elif sys.stderr.isatty():
        with _bar(phase) as callbacks:
            yield callbacks
    else:
        lines = Lines(sys.stderr)
        yield lines.started, lines.moved


@dataclass(slots=True)
class Meter:
    """Bytes of one phase, and the time that they took."""

    total: int
    seconds: Callable[[], float]
    done: int = 0
    began: float = 0.0

    def __post_init__(self) -> None:
        self.began = self.seconds()

    @property
    def rate(self) -> float:
        """Bytes a second so far."""
        return self.done / max(self.seconds() - self.began, 1e-3)

    @property
    def left(self) -> int | None:
        """How many seconds the rest takes at that rate; None where that is not known."""
        return round(max(self.total - self.done, 0) / self.rate) if self.total and self.rate else None

    def text(self) -> str:
        """How much is done, how fast, and how long the rest takes at that rate; empty where nothing is counted."""
        if not self.total:
            return ""
        left = "?" if self.left is None else _duration(self.left)
        share = f"{size_text(self.done)} of {size_text(self.total)} ({self.done / self.total:.0%})"
        return f"{share}, {size_text(self.rate)}/s, {left} left"


@contextmanager
def _bar(phase: str) -> Iterator[tuple[Started, Moved]]:
    """The name of the first phase, which counts nothing, and a bar for those that follow it.

    What only plans ends with the first, and does without rich, which takes 0.05 s to import.
    """
    lock = threading.Lock()
    meter = Meter(0, time.monotonic)
    with ExitStack() as shown:
        shown.enter_context(_word(phase))
        bar: tuple[Progress, TaskID] | None = None

        def started(what: str, nbytes: int) -> None:
            nonlocal bar, meter
            with lock:
                if bar is None:
                    shown.close()
                    bar = shown.enter_context(_rich_bar())
                progress, task = bar
                meter = Meter(nbytes, time.monotonic)
                progress.reset(task, description=what, total=nbytes or None, amount="")

        def moved(nbytes: int) -> None:
            with lock:
                meter.done += nbytes
                if bar is not None:
                    progress, task = bar
                    progress.update(task, completed=meter.done, amount=meter.text())

        yield started, moved


@contextmanager
def _word(phase: str) -> Iterator[None]:
    """A word on stderr that goes away again."""
    sys.stderr.write(phase)
    sys.stderr.flush()
    try:
        yield
    finally:
        sys.stderr.write(f"\r{' ' * len(phase)}\r")
        sys.stderr.flush()


@contextmanager
def _rich_bar() -> Iterator[tuple[Progress, TaskID]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield progress, progress.add_task("", total=None, amount="")


def plain_line(when: str, phase: str, meter: Meter, message: str) -> str:
    """A line for a reader: when, what, and how far or how large it is."""
    amount = meter.text() if meter.done else size_text(meter.total) if meter.total else ""
    return f"{when} {', '.join(filter(None, (phase, amount)))}{message and ': '}{message}"


def json_line(when: str, phase: str, meter: Meter, message: str) -> str:
    """The same for a program."""
    return json.dumps(
        {
            "time": when,
            "phase": phase,
            "bytes": meter.done,
            "total_bytes": meter.total or None,
            "bytes_per_second": round(meter.rate),
            "seconds_left": meter.left,
            "message": message or None,
        }
    )


@dataclass(slots=True)
class Lines:
    """Progress as lines of a log: one when a phase begins, and one a minute."""

    stream: TextIO
    seconds: Callable[[], float] = time.monotonic
    clock: Callable[[], str] = lambda: time.strftime("%H:%M:%S")
    line: Callable[[str, str, Meter, str], str] = plain_line
    _phase: str = ""
    _meter: Meter = field(default_factory=lambda: Meter(0, time.monotonic))
    _shown: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def started(self, what: str, nbytes: int) -> None:
        """Begin a phase."""
        with self._lock:
            self._phase, self._meter = what, Meter(nbytes, self.seconds)
            self._write()

    def moved(self, nbytes: int) -> None:
        """Count bytes."""
        with self._lock:
            self._meter.done += nbytes
            if self.seconds() - self._shown >= SECONDS:
                self._write()

    def ended(self, how: str, message: str = "") -> None:
        """Say that all phases have ended."""
        with self._lock:
            self._phase, self._meter = how, Meter(0, self.seconds)
            self._write(message)

    def _write(self, message: str = "") -> None:
        self._shown = self.seconds()
        self.stream.write(f"{self.line(self.clock(), self._phase, self._meter, message)}\n")
        self.stream.flush()


def _duration(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
