"""A file of `torch.save` without the bytes of its tensors: what is written of it before they are known.

Byte for byte what `torch.save` writes, but for a record of its own that names the file (`.data/serialization_id`).
That is more than the zip format asks for: `torch.load` calculates where records lie, where it maps a file.
Source: caffe2/serialize/inline_container.cc and third_party/miniz in PyTorch.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from itertools import chain
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
_PADDING = [b"FB" + struct.pack("<H", count) + b"Z" * count for count in range(ALIGNMENT)]
"""What aligns a record's data, by its bytes beyond the first four."""
_SIZES, _WIDE_SIZES = struct.Struct("<4s3I"), struct.Struct("<4sI2Q")
"""Behind data: signature, crc, stored bytes, bytes."""
_SUM, _SUM_BEHIND, _BEHIND_SUM = struct.Struct("<I"), 4, 8
"""A checksum, and where it begins and ends in what is behind data."""
UNKNOWN = MAX32
"""What the directory says of a checksum that is not known yet, while the record says 0."""


@dataclass(frozen=True, slots=True)
class Skeleton:
    """What is written of a file before its tensors, and where those go. Offsets are bytes from the file's start."""

    pieces: tuple[tuple[int, bytes], ...]
    """(offset, bytes), in order: all before the first storage with bytes, between these, and behind the last."""
    starts: tuple[int, ...]
    """Where the data of each storage begins, by the storage's number."""
    behind: tuple[int, ...]
    """Where the checksum of each storage stands behind its data, by its number; 0 where it has no bytes."""
    in_directory: tuple[int, ...]
    """Where it stands in the directory; of storages without bytes it is 0 and known."""
    length: int
    """Bytes of the whole file."""


def build_skeleton(pickled: bytes, sizes: Sequence[int], root: str = "archive") -> Skeleton:
    """Lay a file out.

    Args:
        pickled: The pickle, which names storages by their numbers.
        sizes: Bytes of each storage.
        root: The folder that the names of all records begin with.
    """
    first = {
        "data.pkl": pickled,
        ".format_version": b"1",
        ".storage_alignment": str(ALIGNMENT).encode(),
        "byteorder": b"little",
    }
    records: Iterable[tuple[str, int, bytes | None]] = chain(
        ((name, len(data), data) for name, data in first.items()),
        ((f"data/{number}", size, None if size else b"") for number, size in enumerate(sizes)),
        [("version", 2, b"3\n")],
    )
    pieces: list[tuple[int, bytes]] = []
    starts: list[int] = []
    behind: list[int] = []
    entries: list[int] = []
    directory, piece, begun = bytearray(), bytearray(), 0
    for name, size, data in records:
        full, at, entry = f"{root}/{name}".encode(), begun + len(piece), len(directory)
        known = 0 if data is None else crc32(data)
        piece += _header(full, at, size)
        directory += _entry(full, at, size, UNKNOWN if data is None else known)
        begin = begun + len(piece)
        if data is None:
            pieces.append((begun, bytes(piece)))
            begun, piece = begin + size, bytearray()
        else:
            piece += data
        if name.startswith("data/"):
            starts.append(begin)
            behind.append(begun + _SUM_BEHIND if size else 0)
            entries.append(entry + ENTRY_CRC)
        if size:
            piece += (_WIDE_SIZES if at >= MAX32 or size >= MAX32 else _SIZES).pack(b"PK\7\b", known, size, size)
    end = begun + len(piece)
    piece += _end(end, directory, len(first) + len(sizes) + 1)
    in_directory = tuple(end + entry for entry in entries)
    last = begun, bytes(piece)
    return Skeleton((*pieces, last), tuple(starts), tuple(behind), in_directory, begun + len(piece))


def _header(name: bytes, at: int, size: int) -> bytes:
    """The header before a record, padded so that the data behind it is aligned."""
    wide = b"" if at < MAX32 > size else _wide([size, 0] if size >= MAX32 else [], at)
    extra = wide + _PADDING[-(at + HEADER.size + len(name) + len(wide) + 4) % ALIGNMENT]
    flags = UTF8 | DEFERRED if size else UTF8
    return HEADER.pack(b"PK\3\4", 0, flags, 0, 0, 0, 0, 0, 0, len(name), len(extra)) + name + extra


def _entry(name: bytes, at: int, size: int, checksum: int) -> bytes:
    """What the directory says of a record."""
    wide = b""
    if at >= MAX32 or size >= MAX32:
        wide = _wide([size, size] if size >= MAX32 else [], at)
        at, size = min(at, MAX32), min(size, MAX32)
    flags = UTF8 | DEFERRED if size else UTF8
    fixed = ENTRY.pack(b"PK\1\2", 0, 0, flags, 0, 0, 0, checksum, size, size, len(name), len(wide), 0, 0, 0, 0, at)
    return fixed + name + wide


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
    for number, (offset, data) in enumerate(skeleton.pieces):
        there = bytearray(read_at(descriptor, at + offset, len(data)))
        if number:
            there[_SUM_BEHIND:_BEHIND_SUM] = data[_SUM_BEHIND:_BEHIND_SUM]
        if data is skeleton.pieces[-1][1]:
            for behind, place in zip(skeleton.behind, skeleton.in_directory, strict=True):
                if behind:
                    there[place - offset : place - offset + 4] = data[place - offset : place - offset + 4]
        if there != data:
            return False
    return True


def write_checksums(descriptor: int, skeleton: Skeleton, checksums: Iterable[int], at: int = 0) -> None:
    """Write the checksum of every storage's data behind the data, and all of them into the directory at once.

    Args:
        descriptor: An open file.
        skeleton: What was laid out.
        checksums: The CRC-32 of each storage's data, by the storage's number.
        at: Where what was laid out begins, in bytes from the file's start.

    Raises:
        OSError: Where the disk is full or broken.
    """
    offset, data = skeleton.pieces[-1]
    last = bytearray(data)
    for behind, place, checksum in zip(skeleton.behind, skeleton.in_directory, checksums, strict=True):
        if behind >= offset:
            _SUM.pack_into(last, behind - offset, checksum)
        elif behind:
            os.pwrite(descriptor, _SUM.pack(checksum), at + behind)
        if behind:
            _SUM.pack_into(last, place - offset, checksum)
    write_pieces(descriptor, [(at + offset, last)])


def write_pieces(descriptor: int, pieces: Iterable[tuple[int, bytes | bytearray]]) -> None:
    """Write bytes to their places in an open file.

    Raises:
        OSError: Where the disk is full or broken.
    """
    for offset, data in pieces:
        done = os.pwrite(descriptor, data, offset)
        while done < len(data):
            done += os.pwrite(descriptor, data[done:], offset + done)
