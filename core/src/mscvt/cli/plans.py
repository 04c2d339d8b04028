"""What a plan looks like on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from mscvt.cli.results import print_notes
from mscvt.cli.training import print_training_flags, training_flags
from mscvt.views.preview import Preview, preview_object
from mscvt.views.terminal import preview_text

if TYPE_CHECKING:
    from mscvt.jobs.conversion import Conversion

__all__ = ["preview_object", "print_lines", "print_preview"]


def print_preview(conversion: Conversion, target: Path | None, preview: Preview, notes: Iterable[str]) -> None:
    """Show a plan."""
    console = Console(highlight=False)
    print_lines(console, preview_text(preview, console.width))
    if preview.is_detail:
        return
    print_notes(notes)
    print_training_flags(training_flags(conversion, target))


def print_lines(console: Console, lines: Iterable[Text]) -> None:
    """Print lines as they are, whatever the terminal's width."""
    for line in lines:
        console.print(line, soft_wrap=True)
