"""Checksums of files: how they are computed, and where a folder states them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from mscvt.errors import MscvtError
from mscvt.records import dataclass

_BLOCK = 1 << 20
"""Bytes read at a time."""
_LENGTHS = {"sha256": 64, "git-sha1": 40, "md5": 32}
"""Algorithm -> hexadecimal digits. `git-sha1` is what git calls a file: SHA-1 of `blob SIZE`, a zero byte and the
bytes; hubs state it for files that are not in LFS."""
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Sum:
    """A checksum."""

    algorithm: str
    value: str
    """In small hexadecimal digits."""


def make_sum(algorithm: str, value: object) -> Sum | None:
    """A checksum that somebody states; None where it can be none."""
    text = value.lower() if isinstance(value, str) else ""
    if _HEX.fullmatch(text) is None or len(text) != _LENGTHS.get(algorithm):
        return None
    return Sum(algorithm, text)


def sum_of(path: Path, algorithm: str, moved: Callable[[int], None] = lambda nbytes: None) -> Sum:
    """Compute a file's checksum.

    Args:
        path: The file.
        algorithm: One of `sha256`, `git-sha1` and `md5`.
        moved: Called with the bytes that were read.

    Raises:
        MscvtError: Where the file can't be read.
    """
    import hashlib

    names = {"sha256": "sha256", "git-sha1": "sha1", "md5": "md5"}
    digest = hashlib.new(names[algorithm], usedforsecurity=False)
    buffer = bytearray(_BLOCK)
    view = memoryview(buffer)
    try:
        with path.open("rb", buffering=0) as file:
            if algorithm == "git-sha1":
                digest.update(b"blob %d\0" % path.stat().st_size)
            while count := file.readinto(buffer):
                digest.update(view[:count])
                moved(count)
    except OSError as error:
        raise MscvtError(f"{path}: can't be read: {error.strerror}") from None
    return Sum(algorithm, digest.hexdigest())
