"""How many files may be open at once."""

from __future__ import annotations

import resource

from mscvt.errors import MscvtError

OTHER_FILES = 256
"""Files that the interpreter, its libraries and whoever calls this have open."""
_EACH = 2
"""How often a file is open: what is read is mapped and guarded, what is written has a record beside it."""


def allow_open_files(*, read: int, written: int = 0) -> int:
    """Raise the soft limit on open files, as far as the system allows it and it is needed.

    Args:
        read: Files that are open for reading at the same time.
        written: Files that are to be written.

    Returns:
        How many of them can be written at the same time: all, or one at the least.

    Raises:
        MscvtError: Where the system does not allow even that.
    """
    least, count = (_EACH * (read + files) + OTHER_FILES for files in (min(written, 1), written))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return written
    if hard != resource.RLIM_INFINITY and hard < least:
        raise MscvtError(
            f"{least} files must be open at once, the system allows {hard}", hint="Raise the limit (ulimit -Hn)."
        )
    allowed = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return min(written, (allowed - OTHER_FILES) // _EACH - read)
