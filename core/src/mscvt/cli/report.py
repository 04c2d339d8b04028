"""Errors as a user sees them: what is wrong, what to do, and no traceback unless it is asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mscvt.cli.results import error_object
from mscvt.cli.screen import CYAN, RED, say, shows_colours, styled
from mscvt.cli.words import UsageError
from mscvt.errors import MscvtError

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
"""Exit codes: an error, a wrong command line, and what a shell expects of a program that Ctrl-C ended."""


@contextmanager
def reported(*, as_json: bool = False, debug: bool = False) -> Iterator[None]:
    """Show whatever goes wrong inside, and end the program with the exit code that belongs to it."""
    try:
        yield
    except BrokenPipeError:
        raise
    except Exception as error:
        if debug:
            raise
        show_error(worded(error), as_json=as_json)
        raise SystemExit(MISUSED if isinstance(error, UsageError) else FAILED) from None


def worded(error: Exception) -> MscvtError:
    """Any exception as an error that says what happened and what to do."""
    if isinstance(error, MscvtError):
        return error
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        hint = "Is it another user's, or write-protected?" if isinstance(error, PermissionError) else None
        return MscvtError(f"{where}{error.strerror or error}", hint=hint)
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # torch has no type for it
        return MscvtError("there is not enough memory", hint="Give less of it to buffers: --max-memory, --workers.")
    if isinstance(error, RecursionError):
        return MscvtError("something that was read is nested too deeply", hint="Is config.json or the index damaged?")
    if isinstance(error, UnicodeError):
        return MscvtError(f"text can't be read or written: {error}", hint="Is a file damaged, or not UTF-8?")
    return MscvtError(
        f"mscvt itself failed: {type(error).__name__}: {error}",
        hint="This is a fault of mscvt or of a plugin; --debug shows the traceback to report.",
    )


def show_error(error: MscvtError, *, as_json: bool = False) -> None:
    """Write an error to stderr, the hint before a list that may be long; as JSON to stdout, too."""
    say(f"{_coloured('error:', RED)} {error.message}", to=sys.stderr)
    if error.hint:
        say(f"{_coloured('hint:', CYAN)} {error.hint}", to=sys.stderr)
    for line in error.fault_lines():
        say(line, to=sys.stderr)
    if as_json:
        say(json.dumps({"error": error_object(error)}, indent=2))


def _coloured(word: str, colour: int) -> str:
    return styled(word, colour=colour, bold=True) if shows_colours(sys.stderr) else word
