"""What the system says of a disk, as an error that says how to go on."""

from __future__ import annotations

import errno
from pathlib import Path

from mscvt.errors import MscvtError


def disk_error(error: OSError, target: Path, *, is_begun: bool) -> MscvtError:
    """An error for what the system refuses; where work is begun it says that this is kept."""
    kept = "What is done is kept: the same command goes on where this one stopped." if is_begun else None
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = f"Free some space. {kept}" if kept else "Free some space."
        return MscvtError(f"{target}: the disk is full ({error.strerror})", hint=hint)
    return MscvtError(f"{error.filename or target}: {error.strerror or error}", hint=kept)
