"""Getting files and the entries of folders onto the disk for good, and room for them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_NOT_THERE = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.ESPIPE})
"""What a file system says that can't reserve space."""


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, can't be lost by a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Write a file that is either what it was or what it shall be, whatever happens."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def reserve(path: Path) -> bool:
    """Take the space that a file's size promises, so that no other program can take it meanwhile.

    `os.posix_fallocate` would write a byte into every block where the file system can't do it (NFS before 4.2): that
    takes longer than the conversion. So the system call is made itself, where there is one.

    Returns:
        False where the file system can't; the file stays as sparse as it was.

    Raises:
        OSError: Where there is not so much space.
    """
    import ctypes

    fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)
    if fallocate is None:  # no Linux with glibc
        return False
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0 or fallocate(file.fileno(), 0, ctypes.c_int64(0), ctypes.c_int64(size)) == 0:
            return True
        code = ctypes.get_errno()
    if code in _NOT_THERE:
        return False
    raise OSError(code, os.strerror(code), str(path))
