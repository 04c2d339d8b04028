"""`mscvt inspect`: what is in a folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mscvt.cli.folders import check_folder
from mscvt.cli.results import print_json, print_notes
from mscvt.cli.running import chosen_model_type, interruptible, watched
from mscvt.cli.screen import say
from mscvt.cli.tables import Folders, Inspecting, Model, Output, Resources
from mscvt.cli.words import Given
from mscvt.dialects.registry import load_registry


def run_inspect(given: Given) -> None:
    """Look into a folder, and say what is in it."""
    from mscvt.cli.lines import columns, print_lines
    from mscvt.jobs.inspect import inspect_folder
    from mscvt.views.checkpoint import inspection_object, inspection_text

    folder, model = given.read(Folders).load_dir, given.read(Model)
    if folder.parent != Path() or folder.exists():  # a bare word may be meant as the name of a model on a hub
        check_folder("mscvt inspect", folder)
    registry = load_registry()
    wanted = given.read(Inspecting).scan
    with (
        interruptible("nothing was changed"),
        watched(given, "reading headers", wanted=wanted) as (started, progress),
    ):
        scanner = None
        if wanted:
            from mscvt.jobs.scan import scan

            workers = given.read(Resources).workers
            scanner = partial(scan, workers=workers, started=started, progress=progress)
        found = inspect_folder(
            folder,
            registry,
            model_type=chosen_model_type(model, registry),
            iteration=model.iteration,
            hf_cfg_dir=model.hf_cfg_dir,
            scanner=scanner,
        )
    if given.read(Output).json:
        print_json(given.command.name, inspection_object(found))
        return
    print_lines(inspection_text(found, columns()))
    print_notes(found.notes)
    if found.next:
        say(f"go on with: {found.next}")
