"""What a plan looks like on a terminal."""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mscvt.cli.lines import columns, print_lines
from mscvt.cli.results import print_notes
from mscvt.cli.screen import say
from mscvt.cli.tables import Folders, Planned
from mscvt.cli.training import print_training_flags, print_training_meanings, training_flags
from mscvt.cli.words import Given, take_texts
from mscvt.model.options import rows
from mscvt.views.preview import Preview
from mscvt.views.terminal import preview_text

if TYPE_CHECKING:
    from mscvt.jobs.conversion import Conversion

_ENDINGS: Mapping[str, str] = {"hf2mg": "-mcore", "mg2hf": "-hf", "mg2mg": "-new"}
"""Direction -> what is added to the source's name, where no name was given for the result."""


def print_preview(conversion: Conversion, target: Path | None, preview: Preview, notes: Iterable[str]) -> None:
    """Show a plan."""
    print_lines(preview_text(preview, columns()))
    if preview.is_detail:
        return
    print_notes(notes)
    print_training_flags(training_flags(conversion, target))


def print_plan(conversion: Conversion, given: Given, preview: Preview, notes: Iterable[str]) -> None:
    """Show what a plan was asked for, and the command that goes on with it."""
    planned, target = given.read(Planned), given.read(Folders).save_dir
    if planned.training_args:
        print_training_meanings(training_flags(conversion, target))
        print_notes(notes)
        return
    print_preview(conversion, target, preview, notes)
    if planned.html:
        say(f"wrote {shlex.quote(str(planned.html))}")
    if planned.direction and preview.fits and not preview.is_detail:
        say(f"go on with: {shlex.join(planned_command(given))}")


def planned_command(given: Given) -> list[str]:
    """The command that does what was planned, word by word."""
    direction, folders = given.read(Planned).direction, given.read(Folders)
    own = {spelling for row in rows(Planned).values() for spelling in row.flags}
    left, words = deque(given.words), ["mscvt", direction]
    if direction in left and not any(word.startswith("--direction") for word in left):
        left.remove(direction)
    while left:
        word = left.popleft()
        name, equals, attached = word.partition("=")
        if name in own:
            take_texts(left, attached if equals else None, 1)
        else:
            words.append(word)
    return [*words, *([] if folders.save_dir else ["--save-dir", f"{folders.load_dir}{_ENDINGS[direction]}"])]
