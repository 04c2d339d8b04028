"""The commands for folders: filling them from a hub, checking them, and what is unfinished in them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mscvt.cli import folder_results
from mscvt.cli.folders import check_folder
from mscvt.cli.report import FAILED
from mscvt.cli.results import print_json
from mscvt.cli.running import chosen_model_type, interruptible, watched
from mscvt.cli.tables import Checking, Folders, Model, Output, Repository, Target
from mscvt.cli.words import Given
from mscvt.dialects.registry import load_registry
from mscvt.errors import MscvtError

if TYPE_CHECKING:
    from mscvt.output.download import Origin


def run_download(given: Given) -> None:
    """Fetch a model, and say what is there now."""
    from mscvt.jobs.download import download

    asked = given.read(Repository)
    with (
        interruptible("nothing was begun"),
        watched(given, "asking the hub") as (started, progress),
    ):
        done = download(
            asked.repository,
            asked.to,
            source=asked.source,
            revision=asked.revision,
            connections=asked.connections,
            started=started,
            progress=progress,
        )
    if given.read(Output).json:
        print_json(given.command.name, folder_results.download_object(done))
    else:
        folder_results.print_download(done, _go_on(done.target, done.origin))


def _go_on(folder: Path, origin: Origin) -> str:
    """The command that converts what was downloaded, or why there is none."""
    from mscvt.jobs.next_step import conversion_of

    try:
        return f"go on with: {shlex.join(conversion_of(folder, origin, load_registry()))}"
    except MscvtError as error:
        return " ".join(filter(None, ("note:", error.message, error.hint)))


def run_check(given: Given) -> None:
    """Look for what is wrong with a checkpoint, and say it."""
    from mscvt.jobs.check import check_checkpoint

    folder = given.read(Folders).load_dir
    check_folder("mscvt check", folder)
    registry = load_registry()
    with (
        interruptible("nothing was changed"),
        watched(given, "reading headers") as (started, progress),
    ):
        check = check_checkpoint(
            folder,
            registry,
            chosen_model_type(given.read(Model), registry),
            quick=given.read(Checking).quick,
            started=started,
            progress=progress,
        )
    if given.read(Output).json:
        print_json(given.command.name, folder_results.check_object(check))
    else:
        folder_results.print_check(check)
    if not check.is_whole:
        sys.exit(FAILED)


def run_status(given: Given) -> None:
    """Say what is unfinished."""
    from mscvt.cli import unfinished_results
    from mscvt.jobs.unfinished import status_of

    status = status_of(given.read(Target).target)
    if given.read(Output).json:
        print_json(given.command.name, unfinished_results.status_object(status))
    else:
        unfinished_results.print_status(status)


def run_discard(given: Given) -> None:
    """Remove what is unfinished, and say what that was."""
    from mscvt.cli import unfinished_results
    from mscvt.jobs.unfinished import discard

    status = discard(given.read(Target).target)
    if given.read(Output).json:
        print_json(given.command.name, unfinished_results.status_object(status))
    else:
        unfinished_results.print_discarded(status)
