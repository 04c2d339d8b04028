"""Locks between processes: advisory locks on files, which the system lets go of when a process ends in any way."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mscvt.errors import MscvtError

_PATIENCE = 10.0
"""Seconds to wait for the gate, which is held for as long as it takes to look around, or to rename a result."""


def try_lock(descriptor: int, path: Path, *, shared: bool = False) -> bool:
    """Lock an open file, or turn its lock into the other kind; False where another process has it.

    Raises:
        MscvtError: Where the file system knows no locks.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise MscvtError(
            f"{path}: can't be locked: {error.strerror}",
            hint="Two runs could spoil each other's work. Mount the file system with locks (Lustre: -o flock), "
            "or choose another --save-dir.",
        ) from None
    return True


def open_lock(path: Path, *, shared: bool = False) -> int | None:
    """Make and lock a file; returns its descriptor, or None where another process has the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        if try_lock(descriptor, path, shared=shared):
            return descriptor
    except MscvtError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def is_locked(path: Path) -> bool:
    """Whether a process has the lock of a file; nothing is written for it, so whoever may read may ask."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(descriptor, path)
    finally:
        os.close(descriptor)


@contextmanager
def gate(folder: Path, name: str = "gate") -> Iterator[bool]:
    """Be alone in a folder for a moment; the folder is made where it is missing, and may be removed inside.

    Yields:
        False where somebody else is in there and does not come out.
    """
    path = folder / name
    deadline = time.monotonic() + _PATIENCE
    while True:
        with suppress(FileExistsError):  # Path.mkdir(exist_ok=True) fails if the folder is removed at this moment
            os.mkdir(folder)
        try:
            descriptor = open_lock(path)
        except FileNotFoundError:
            continue  # the folder was removed since
        if descriptor is None:
            if time.monotonic() > deadline:
                yield False
                return
            time.sleep(0.02)
            continue
        try:
            if _is_same(descriptor, path):
                yield True
                return
        finally:
            os.close(descriptor)


def _is_same(descriptor: int, path: Path) -> bool:
    """Whether a locked file is still the one at its path; one that was removed locks nobody out."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
