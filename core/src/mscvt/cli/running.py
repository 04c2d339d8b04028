"""What the commands share when they run."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import typer

from mscvt.cli.model_types import match_model_type
from mscvt.cli.report import INTERRUPTED
from mscvt.cli.tables import Machines, Model, Output, Progress
from mscvt.cli.words import Given
from mscvt.errors import MscvtError
from mscvt.executors.executor import Executor
from mscvt.plugins.registry import Registry


def wants_progress(given: Given) -> bool:
    """Whether progress is shown."""
    return not (given.read(Output).json or given.read(Progress).quiet)


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
        typer.echo(f"\ninterrupted; {str(interrupt) or what}", err=True)
        if any(thread.name.startswith("mscvt-") for thread in threading.enumerate()):
            os._exit(INTERRUPTED)  # a slow disk holds a worker up; an interpreter that ends around it would crash
        raise typer.Exit(INTERRUPTED) from None
