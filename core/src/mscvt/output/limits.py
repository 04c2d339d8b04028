"""How many files may be open at once."""

from __future__ import annotations

import resource

from mscvt.errors import MscvtError

OTHER_FILES = 256
"""Files that the interpreter, its libraries and whoever calls this have open."""
_EACH = 2
"""How often a file is open: what is read is mapped and guarded, what is written has a record beside it."""


def allow_open_files(*, read: int, written: int = 0) -> None:
    """Raise the soft limit on open files, as far as the system allows it.

    Args:
        read: Files that are read.
        written: Files that are written at the same time.

    Raises:
        MscvtError: Where it does not allow so many.
    """
    count = _EACH * (read + written) + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        can_be_parts = written > 1 and _EACH * (read + 1) + OTHER_FILES <= hard
        raise MscvtError(
            f"{count} files must be open at once, the system allows {hard}",
            hint=f"Raise the limit (ulimit -Hn){', or write a part at a time with --only' if can_be_parts else ''}.",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
