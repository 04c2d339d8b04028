"""The checksums of records whose data was written after the file was laid out.

A checksum stands twice: behind the record's data and in the directory. While it is not known the two differ, so
whatever an interruption leaves of a change to both is told from a checksum that is whole.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mscvt.errors import MscvtError
from mscvt.formats.torch_zip.archive import (
    ENTRY_CRC,
    Record,
    data_start,
    directory_bytes,
    parse_directory,
    read_at,
    reading,
)
from mscvt.formats.torch_zip.skeleton import write_pieces

_TRAILER = struct.Struct("<4sI")
"""What stands behind a record's data: signature, checksum; sizes follow."""


@dataclass(frozen=True, slots=True)
class ChecksumPlaces:
    """A data record, and where its checksum stands. Offsets are bytes from the file's start."""

    start: int
    """Where its data begins."""
    size: int
    """Bytes of its data."""
    trailer: int
    """Where the checksum behind the data stands."""
    entry: int
    """Where the checksum in the directory stands."""
    is_known: bool
    """Whether the two say the same."""


def checksum_places(path: Path) -> tuple[ChecksumPlaces, ...]:
    """Where the checksums of a file's data records stand, in the order of the file; records without bytes have none.

    Raises:
        MscvtError: Where the file is none that was laid out here.
    """
    with _opened(path, os.O_RDONLY) as descriptor:
        return tuple(_places(descriptor))


def unknown_checksums(path: Path) -> dict[int, int]:
    """The data records whose checksum is not known yet: where the data begins -> its bytes.

    Raises:
        MscvtError: Where the file is none that was laid out here.
    """
    return {places.start: places.size for places in checksum_places(path) if not places.is_known}


def write_checksums(path: Path, checksums: Mapping[int, int]) -> None:
    """Note the checksums of data records; others are left as they are. The caller syncs the file.

    Args:
        path: The file.
        checksums: Where a record's data begins, in bytes from the file's start -> the CRC-32 of its data.

    Raises:
        MscvtError: Where no data record begins at one of the offsets.
        OSError: Where the disk is full or broken.
    """
    with _opened(path, os.O_RDWR) as descriptor:
        found = {places.start: places for places in _places(descriptor)}
        if strange := sorted(checksums.keys() - found.keys()):
            raise MscvtError(f"no record begins at byte {strange[0]:,}")
        pieces = []
        for start, checksum in checksums.items():
            packed = struct.pack("<I", checksum)
            pieces += [(found[start].trailer, packed), (found[start].entry, packed)]
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        write_pieces(descriptor, pieces)
    finally:
        os.close(descriptor)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    with reading(path):
        descriptor = os.open(path, flags | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _places(descriptor: int) -> Iterator[ChecksumPlaces]:
    offset, count, raw = directory_bytes(descriptor, 0, os.fstat(descriptor).st_size)
    directory = parse_directory(raw, count, offset, 0)
    for name, record in directory.records.items():
        if name.startswith("data/") and record.size:
            yield _place(descriptor, record, raw, offset)


def _place(descriptor: int, record: Record, raw: bytes, offset: int) -> ChecksumPlaces:
    start = data_start(descriptor, record)
    end = start + record.size
    signature, behind = _TRAILER.unpack(read_at(descriptor, end, _TRAILER.size))
    if signature != b"PK\7\b":
        raise MscvtError(f"has no checksum behind its record {record.name[:100]!a}")
    at = record.entry - offset + ENTRY_CRC
    (said,) = struct.unpack_from("<I", raw, at)
    return ChecksumPlaces(start, record.size, end + 4, offset + at, behind == said)
