"""How many files may be open at once."""

from __future__ import annotations

import resource

from mscvt.errors import MscvtError

OTHER_FILES = 256
"""Files that the interpreter, its libraries and whoever calls this have open."""


def allow_open_files(count: int) -> None:
    """Raise the soft limit on open files, as far as the system allows it.

    Raises:
        MscvtError: Where it does not allow so many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        raise MscvtError(
            f"{count} files must be open at once, the system allows {hard}",
            hint="Raise the limit (ulimit -Hn), or write a part at a time with --only.",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
