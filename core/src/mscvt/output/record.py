"""The record of one output file: its lock, the tensors whose bytes are on the disk, and at last that it is whole.

    7             tensor 7 of the file is written
    8 0a1b2c3d    so is tensor 8, and this is its CRC-32
    whole 66048   all of it is, and so many bytes is the file's size

A line counts from the moment when its newline is there. Lines are only added, and only after the bytes that they speak
of were synced.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from mscvt.output.locks import open_lock
from mscvt.records import dataclass

_LINE = re.compile(rb"(\d{1,9})(?: ([0-9a-f]{8}))?\n|whole (\d{1,18})\n")

_LAST = 32
"""Bytes that the last line of a record fits into."""


@dataclass(frozen=True, slots=True)
class Noted:
    """What a record says."""

    tensors: Mapping[int, int | None] = field(default_factory=dict)
    """Number of a finished tensor in the order of the file -> its CRC-32, where the format wants it."""
    size: int | None = None
    """Bytes of the whole file; None where it is not whole."""
    length: int = 0
    """Bytes of the record that make sense; a crash may leave half a line behind them."""


def parse(text: bytes) -> Noted:
    """Read a record up to its end, or up to what makes no sense."""
    tensors: dict[int, int | None] = {}
    position = 0
    while match := _LINE.match(text, position):
        position = match.end()
        number, checksum, size = match.groups()
        if size is not None:
            return Noted(tensors, int(size), position)
        tensors[int(number)] = None if checksum is None else int(checksum, 16)
    return Noted(tensors, None, position)


def whole_size(path: Path) -> int | None:
    """Bytes of the whole file that a record is about, whoever is writing it; None where the file is not whole."""
    try:
        with path.open("rb") as lines:
            lines.seek(max(0, os.fstat(lines.fileno()).st_size - _LAST))
            match = re.search(rb"^whole (\d{1,18})\n\Z", lines.read(), re.MULTILINE)
    except FileNotFoundError:
        return None
    return int(match[1]) if match else None


class Record:
    """The record of a file that this run writes.

    Attributes:
        tensors: Number of each tensor that is noted -> its CRC-32 or None.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        """Take over a locked descriptor, and remove what a crash left half written."""
        self.path = path
        self._descriptor = descriptor
        noted = parse(path.read_bytes())
        self.tensors = dict(noted.tensors)
        os.ftruncate(descriptor, noted.length)  # or the next line would continue it, and be another number

    def add(self, tensors: Mapping[int, int | None]) -> None:
        """Note finished tensors, each with its CRC-32 or None; their bytes must be on the disk."""
        self._append("".join(f"{n}\n" if crc is None else f"{n} {crc:08x}\n" for n, crc in tensors.items()))
        self.tensors.update(tensors)

    def finish(self, size: int) -> None:
        """Note that the file is whole; all its bytes must be on the disk."""
        self._append(f"whole {size}\n")

    def _append(self, text: str) -> None:
        rest = memoryview(text.encode())
        os.lseek(self._descriptor, 0, os.SEEK_END)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def sync(self) -> None:
        """Wait until what was noted can't be lost by a power failure."""
        os.fsync(self._descriptor)

    def clear(self) -> None:
        """Forget everything."""
        if os.fstat(self._descriptor).st_size:
            os.ftruncate(self._descriptor, 0)
            self.sync()
        self.tensors.clear()

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


def open_record(path: Path) -> Record | None:
    """Lock the record of a file and read it; None where another run writes this file."""
    descriptor = open_lock(path)
    return None if descriptor is None else Record(path, descriptor)
