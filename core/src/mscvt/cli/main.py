"""The entry points of the program."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from contextlib import suppress

_YOUNG = 100_000
"""New objects between two looks for garbage; a plan is a million that are none, and a tenth of its time was looking."""
_BLAS = "OPENBLAS_NUM_THREADS"
"""How many threads numpy's product of matrices gets when it is loaded. Nothing uses it, and one for each of two cores
takes 70 ms."""


def run() -> None:
    """The program: `main`, and then an end at once, where torch would take 0.2 to 0.4 s to be unloaded."""
    gc.set_threshold(_YOUNG)
    os.environ.setdefault(_BLAS, "1")
    try:
        main()
    except SystemExit as end:
        atexit._run_exitfuncs()
        with suppress(OSError):  # where nobody reads any more, the interpreter says so at its own end
            sys.stdout.flush()
            sys.stderr.flush()
            if isinstance(end.code, int):
                os._exit(end.code)
        raise


def main() -> None:
    """Run the command line and exit: 0 where all went well, 1 on an error, 2 on wrong usage, 130 on Ctrl-C."""
    from mscvt.cli.program import run_words

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a path may hold what the terminal can't show
    run_words(sys.argv[1:])
    sys.exit(0)
