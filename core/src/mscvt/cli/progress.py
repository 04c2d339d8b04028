"""A progress bar on stderr, where that is a terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def show_progress(*, wanted: bool = True) -> Iterator[tuple[Callable[[str, int], None], Callable[[int], None]]]:
    """Give the callbacks that begin a phase and that count its bytes."""
    if not wanted or not sys.stderr.isatty():
        yield (lambda what, nbytes: None), (lambda nbytes: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    lock = threading.Lock()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("planning", total=None)

        def started(what: str, nbytes: int) -> None:
            bar.reset(task, description=what, total=nbytes or None)

        def progress(nbytes: int) -> None:
            with lock:
                bar.advance(task, nbytes)

        yield started, progress
