"""What a command line asks for is done: a command runs, or typer shows help and completes words."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from mscvt.cli.command_table import BY_NAME
from mscvt.cli.dispatch import HELP, run_command
from mscvt.cli.report import FAILED, INTERRUPTED, MISUSED, show_error
from mscvt.cli.screen import say
from mscvt.cli.words import UsageError


def run_words(words: Sequence[str]) -> None:
    """Do what the words after the program's name ask for.

    Raises:
        SystemExit: With the exit code, where it is not 0.
    """
    try:
        if words and words[0] in BY_NAME and not set(HELP) & set(words):
            run_command(BY_NAME[words[0]], words[1:])
        else:
            from mscvt.cli.app import app  # imports typer, which commands do without

            app(list(words), prog_name="mscvt")
    except UsageError as error:  # of what stands before the command; the command shows its own errors
        show_error(error)
        sys.exit(MISUSED)
    except KeyboardInterrupt:
        say("\ninterrupted", to=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to be flushed is for nobody
        sys.exit(FAILED)
