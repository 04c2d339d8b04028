"""What the commands share when they run."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

from mscvt.cli.model_types import match_model_type
from mscvt.cli.progress import Lines, Moved, Started, json_line, plain_line, show_progress
from mscvt.cli.report import INTERRUPTED, worded
from mscvt.cli.screen import say
from mscvt.cli.tables import Machines, Model, Output, Progress
from mscvt.cli.words import Given
from mscvt.errors import MscvtError
from mscvt.plugins.registry import Registry

if TYPE_CHECKING:
    from mscvt.executors.executor import Executor


@contextmanager
def watched(given: Given, phase: str, *, wanted: bool = True) -> Iterator[tuple[Started, Moved]]:
    """Show progress as the options say, and give the callbacks that begin a phase and count its bytes.

    Args:
        given: The command line.
        phase: What comes first.
        wanted: Whether there is anything to show on the terminal.

    Raises:
        MscvtError: Where the file of the log can't be written.
    """
    path, as_json = given.read(Progress).log_file, given.read(Output).json
    shown = show_progress(phase, wanted=wanted and not (as_json or given.read(Progress).quiet))
    if path is None:
        with shown as callbacks:
            yield callbacks
        return
    try:
        stream = path.open("a", encoding="utf-8")
    except OSError as error:
        raise MscvtError(
            f"--log-file {path}: can't be written: {error.strerror}",
            hint="Give a file in a folder that exists and may be written to.",
        ) from None
    with stream, shown as (started, moved):
        log = Lines(stream, clock=_date, line=json_line if as_json else plain_line)

        def start(what: str, nbytes: int) -> None:
            started(what, nbytes)
            log.started(what, nbytes)

        def move(nbytes: int) -> None:
            moved(nbytes)
            log.moved(nbytes)

        log.started(phase, 0)
        try:
            yield start, move
        except KeyboardInterrupt:
            log.ended("interrupted")
            raise
        except Exception as error:
            log.ended("failed", worded(error).message)
            raise
        log.ended("done")


def _date() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def chosen_model_type(model: Model, registry: Registry) -> str | None:
    """The model type that was asked for; a word that nothing is like is left to the registry to refuse."""
    if model.model_type_hf is None:
        return None
    spellings = {name: family.model_type.config_model_types for name, family in registry.families.items()}
    return match_model_type(model.model_type_hf, spellings) or model.model_type_hf


@contextmanager
def chosen_executor(given: Given) -> Iterator[Executor | None]:
    """Where parts of the work run; None for this process, which does all of it at once.

    Raises:
        MscvtError: Where options contradict each other, or there is no such cluster.
    """
    asked = given.read(Machines)
    if asked.executor == "local":
        if asked.ray_address is not None:
            raise MscvtError(
                "--ray-address is given and --executor ray is not", hint="Give both of them, or leave out both."
            )
        yield None
        return
    from mscvt.executors.ray_tasks import ray_cluster

    with redirect_stdout(sys.stderr), ray_cluster(asked.ray_address) as executor:  # what Ray says is no result
        yield executor


@contextmanager
def interruptible(what: str) -> Iterator[None]:
    """End soon after Ctrl-C, and say what is left."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        say(f"\ninterrupted; {str(interrupt) or what}", to=sys.stderr)
        if any(thread.name.startswith("mscvt-") for thread in threading.enumerate()):
            os._exit(INTERRUPTED)  # a slow disk holds a worker up; an interpreter that ends around it would crash
        raise SystemExit(INTERRUPTED) from None
