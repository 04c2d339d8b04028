"""One command, run from its words."""

from __future__ import annotations

from collections.abc import Sequence

from mscvt.cli.command_table import Command
from mscvt.cli.report import reported
from mscvt.cli.tables import Output
from mscvt.cli.words import read_words

HELP = "--help", "-h"
"""Words that ask for help wherever they stand."""


def run_command(command: Command, words: Sequence[str]) -> None:
    """Run a command.

    Args:
        command: The command.
        words: What follows its name.

    Raises:
        SystemExit: With the exit code, where it is not 0; what is wrong was shown.
    """
    given = read_words(command, words)
    output = given.read(Output)
    with reported(as_json=output.json, debug=output.debug):
        if given.error:
            raise given.error
        from mscvt.cli.commands import RUNS

        RUNS[command.name](given)
