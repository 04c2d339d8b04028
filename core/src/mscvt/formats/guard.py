"""Watching a file that is mapped: the system kills a process that touches a mapped page which was cut off the file.

Reading with `pread` would be safe, and as fast for rows that lie together; for columns of a matrix, of which every
tensor-parallel rank reads some, it would read everything once for each rank. Checking the size alone leaves the time
that a block takes, in which a process that does nothing else is nearly always caught. So a *lease* is taken where the
system gives one (Linux, local file systems, one's own files): whoever opens the file for writing, or cuts it, waits for
up to `/proc/sys/fs/lease-break-time` seconds, and meanwhile this process sees it and stops reading. Source: fcntl(2).
"""

from __future__ import annotations

import fcntl
import os
import signal
import weakref
from math import inf
from pathlib import Path
from time import monotonic

from mscvt.errors import MscvtError

_SECONDS = 0.001
"""How long a lease is taken for unbroken once it was looked at: it is given up after seconds at the earliest."""


class Guard:
    """A file that is being read through a mapping."""

    def __init__(self, path: Path) -> None:
        """Open the file once more, and take a lease on it where there are any.

        Raises:
            OSError: Where it can't be opened.
        """
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)  # then writers go on
        self._size = os.fstat(self._descriptor).st_size
        self._is_leased = _take_lease(self._descriptor)
        self._looked = -inf

    def check(self) -> None:
        """See that nobody has begun to change the file; takes a microsecond or two.

        Raises:
            MscvtError: Where somebody has.
        """
        if self._is_leased:
            now = monotonic()
            if now < self._looked + _SECONDS:
                return
            is_same = fcntl.fcntl(self._descriptor, fcntl.F_GETLEASE) == fcntl.F_RDLCK
            self._looked = now if is_same else -inf
        else:
            is_same = os.fstat(self._descriptor).st_size == self._size
        if not is_same:
            raise MscvtError(
                f"{self._path}: another program is writing to it, or has cut it, while it is read",
                hint="Let nothing write to the source, and begin anew with --overwrite.",
            )


def _take_lease(descriptor: int) -> bool:
    """Take a lease for reading; False where the system has none, or the file is not ours or open for writing."""
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        fcntl.fcntl(
            descriptor, fcntl.F_SETSIG, signal.SIGURG
        )  # which nobody minds; the usual one would end the process
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return False
    return True
