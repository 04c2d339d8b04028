"""How far a run is, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from mscvt.views.sizes import size_text

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

    def text(self) -> str:
        """How much is done, how fast, and how long the rest takes at that rate; empty where nothing is counted."""
        if not self.total:
            return ""
        rate = self.done / max(self.seconds() - self.began, 1e-3)
        left = _duration(max(self.total - self.done, 0) / rate) if rate else "?"
        share = f"{size_text(self.done)} of {size_text(self.total)} ({self.done / self.total:.0%})"
        return f"{share}, {size_text(rate)}/s, {left} left"


@contextmanager
def _bar(phase: str) -> Iterator[tuple[Started, Moved]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    lock = threading.Lock()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(phase, total=None, amount="")
        meter = Meter(0, time.monotonic)

        def started(what: str, nbytes: int) -> None:
            nonlocal meter
            with lock:
                meter = Meter(nbytes, time.monotonic)
                bar.reset(task, description=what, total=nbytes or None, amount="")

        def moved(nbytes: int) -> None:
            with lock:
                meter.done += nbytes
                bar.update(task, completed=meter.done, amount=meter.text())

        yield started, moved


@dataclass(slots=True)
class Lines:
    """Progress as lines of a log: one when a phase begins, and one a minute."""

    stream: TextIO
    seconds: Callable[[], float] = time.monotonic
    clock: Callable[[], str] = lambda: time.strftime("%H:%M:%S")
    _phase: str = ""
    _meter: Meter = field(default_factory=lambda: Meter(0, time.monotonic))
    _shown: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def started(self, what: str, nbytes: int) -> None:
        """Begin a phase."""
        with self._lock:
            self._phase, self._meter = what, Meter(nbytes, self.seconds)
            self._write(size_text(nbytes) if nbytes else "")

    def moved(self, nbytes: int) -> None:
        """Count bytes."""
        with self._lock:
            self._meter.done += nbytes
            if self.seconds() - self._shown >= SECONDS:
                self._write(self._meter.text())

    def _write(self, text: str) -> None:
        self._shown = self.seconds()
        self.stream.write(f"{self.clock()} {', '.join(filter(None, (self._phase, text)))}\n")
        self.stream.flush()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
