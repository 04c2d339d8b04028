"""A file of `torch.save` without the bytes of its tensors: what is written of it before they are known.

Byte for byte what `torch.save` writes, but for a record of its own that names the file (`.data/serialization_id`).
That is more than the zip format asks for: `torch.load` calculates where records lie, where it maps a file.
Source: caffe2/serialize/inline_container.cc and third_party/miniz in PyTorch.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mscvt.formats.torch_zip.archive import (
    DEFERRED,
    END,
    END64,
    ENTRY,
    ENTRY_CRC,
    HEADER,
    LOCATOR,
    MAX16,
    MAX32,
    UTF8,
    read_at,
)
from mscvt.formats.torch_zip.checksums import crc32
from mscvt.records import dataclass

ALIGNMENT = 64
"""Bytes; each record's data begins at a multiple."""
_MADE_BY, _NEEDS = 0x031E, 0x2D
"""Versions that the end record of 64 bits states."""
UNKNOWN = MAX32
"""What the directory says of a checksum that is not known yet, while the record says 0."""


@dataclass(frozen=True, slots=True)
class Skeleton:
    """What is written of a file before its tensors, and where those go. Offsets are bytes from the file's start."""

    pieces: tuple[tuple[int, bytes], ...]
    """(offset, bytes)."""
    starts: tuple[int, ...]
    """Where the data of each storage begins, by the storage's number."""
    checksums: tuple[tuple[int, int], ...]
    """Where the checksum of each storage stands, by its number: behind the data and in the directory; storages without
    bytes have none, and say 0."""
    length: int
    """Bytes of the whole file."""


def build_skeleton(pickled: bytes, sizes: Sequence[int], root: str = "archive") -> Skeleton:
    """Lay a file out.

    Args:
        pickled: The pickle, which names storages by their numbers.
        sizes: Bytes of each storage.
        root: The folder that the names of all records begin with.
    """
    records: list[tuple[str, int, bytes | None]] = [
        (name, len(data), data)
        for name, data in (
            ("data.pkl", pickled),
            (".format_version", b"1"),
            (".storage_alignment", str(ALIGNMENT).encode()),
            ("byteorder", b"little"),
        )
    ]
    records += [(f"data/{number}", size, None if size else b"") for number, size in enumerate(sizes)]
    records.append(("version", 2, b"3\n"))
    pieces: list[tuple[int, bytes]] = []
    starts: list[int] = []
    places: list[tuple[int, int]] = []
    directory, piece, begun = bytearray(), bytearray(), 0
    for name, size, data in records:
        at = begun + len(piece)
        known = 0 if data is None else crc32(data)
        entry = len(directory)
        piece += _header(f"{root}/{name}".encode(), at, size)
        directory += _entry(f"{root}/{name}".encode(), at, size, UNKNOWN if data is None else known)
        if name.startswith("data/"):
            starts.append(begun + len(piece))
            places.append((0, 0))
        if data is None:
            pieces.append((begun, bytes(piece)))
            begun, piece = begun + len(piece) + size, bytearray()
            places[-1] = begun + 4, entry + ENTRY_CRC
        else:
            piece += data
        if size:
            piece += struct.pack("<4sI2Q" if max(at, size) >= MAX32 else "<4s3I", b"PK\7\b", known, size, size)
    end = begun + len(piece)
    piece += _end(end, directory, len(records))
    checksums = tuple((behind, end + entry if behind else 0) for behind, entry in places)
    return Skeleton((*pieces, (begun, bytes(piece))), tuple(starts), checksums, begun + len(piece))


def _header(name: bytes, at: int, size: int) -> bytes:
    """The header before a record, padded so that the data behind it is aligned."""
    wide = _wide([size, 0] if size >= MAX32 else [], at)
    padding = -(at + HEADER.size + len(name) + len(wide) + 4) % ALIGNMENT
    extra = wide + b"FB" + struct.pack("<H", padding) + b"Z" * padding
    flags = UTF8 | (DEFERRED if size else 0)
    return HEADER.pack(b"PK\3\4", 0, flags, 0, 0, 0, 0, 0, 0, len(name), len(extra)) + name + extra


def _entry(name: bytes, at: int, size: int, checksum: int) -> bytes:
    """What the directory says of a record."""
    wide = _wide([size, size] if size >= MAX32 else [], at)
    flags, short = UTF8 | (DEFERRED if size else 0), min(size, MAX32)
    fixed = (0, 0, flags, 0, 0, 0, checksum, short, short, len(name), len(wide), 0, 0, 0, 0, min(at, MAX32))
    return ENTRY.pack(b"PK\1\2", *fixed) + name + wide


def _wide(sizes: list[int], at: int) -> bytes:
    """The extra field for numbers of 64 bits."""
    values = sizes + ([at] if at >= MAX32 else [])
    return struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values) if values else b""


def _end(at: int, directory: bytearray, count: int) -> bytes:
    size, end = len(directory), at + len(directory)
    return (
        bytes(directory)
        + END64.pack(b"PK\6\6", END64.size - 12, _MADE_BY, _NEEDS, 0, 0, count, count, size, at)
        + LOCATOR.pack(b"PK\6\7", 0, end, 1)
        + END.pack(b"PK\5\6", 0, 0, min(count, MAX16), min(count, MAX16), min(size, MAX32), min(at, MAX32), 0)
    )


def write_skeleton(path: Path, skeleton: Skeleton) -> None:
    """Write a file whose tensors are holes, in the place of whatever is there.

    Raises:
        OSError: Where the disk is full or broken.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        os.ftruncate(descriptor, skeleton.length)
        write_pieces(descriptor, skeleton.pieces)
    finally:
        os.close(descriptor)


def is_laid_out(descriptor: int, skeleton: Skeleton, at: int = 0) -> bool:
    """Whether an open file has all that was laid out, whatever its tensors and their checksums are.

    Args:
        descriptor: The file.
        skeleton: What was laid out.
        at: Where it begins, in bytes from the file's start.

    Raises:
        MscvtError: Where the file is shorter.
    """
    places = sorted(place for pair in skeleton.checksums for place in pair if place)
    for offset, data in skeleton.pieces:
        there = bytearray(read_at(descriptor, at + offset, len(data)))
        for place in places[bisect_left(places, offset) : bisect_left(places, offset + len(data))]:
            checksum = slice(place - offset, place - offset + 4)
            there[checksum] = data[checksum]
        if there != data:
            return False
    return True


def checksum_pieces(skeleton: Skeleton, number: int, checksum: int, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the checksum of a storage's data, of which there are two, as (offset, bytes).

    Args:
        skeleton: What was laid out.
        number: The storage.
        checksum: The CRC-32 of its data.
        at: Where what was laid out begins, in bytes from the file's start.
    """
    for place in skeleton.checksums[number]:
        if place:
            yield at + place, struct.pack("<I", checksum)


def write_pieces(descriptor: int, pieces: Iterable[tuple[int, bytes]]) -> None:
    """Write bytes to their places in an open file.

    Raises:
        OSError: Where the disk is full or broken.
    """
    for offset, data in pieces:
        done = os.pwrite(descriptor, data, offset)
        while done < len(data):
            done += os.pwrite(descriptor, data[done:], offset + done)
