"""The zip file around a pickle of `torch.save`: its directory, and where each record's bytes lie.

A record lies where the directory and the header in front of the record say together; nothing is calculated from what
torch would have written. Records are stored, never compressed, so a record's bytes are bytes of the file.
Source: the zip specification (APPNOTE.TXT 4.3 to 4.5).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from mscvt.errors import MscvtError
from mscvt.records import dataclass

END = struct.Struct("<4s4H2IH")
"""End record: signature, disk, directory's disk, entries here, entries, directory's bytes, its offset, comment."""
END64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR = struct.Struct("<4sIQI")
ENTRY = struct.Struct("<4s6H3I5H2I")
"""Directory entry: signature, made by, needs, flags, method, time, date, crc, stored bytes, bytes, lengths of name,
extra and comment, disk, attributes, attributes, offset of the header."""
_IN_ENTRY = struct.Struct("<4s4x2H8x2I4H6xI")
"""The same: signature, flags, method, stored bytes, bytes, lengths of name, extra and comment, disk, offset."""
HEADER = struct.Struct("<4s5H3I2H")
"""Header before a record: signature, needs, flags, method, time, date, crc, stored bytes, bytes, lengths."""
_IN_HEADER = struct.Struct("<4s2x2H8x2I2H")
"""The same: signature, flags, method, stored bytes, bytes, lengths."""
ENTRY_CRC, ENTRY_SIZE, _HEADER_SIZE = 16, ENTRY.size, HEADER.size
"""Bytes from a directory entry's start to its CRC-32; bytes of an entry and of a header without names."""
DEFERRED, UTF8 = 1 << 3, 1 << 11
"""Flags: checksum and sizes stand behind the data; the name is UTF-8."""
_OTHER_FLAGS = ~(DEFERRED | UTF8)
"""They say that the data is encrypted or something else than the record's bytes."""
MAX16, MAX32 = 0xFFFF, 0xFFFFFFFF
"""What a field says whose value stands in a field of 64 bits elsewhere."""
PICKLE = "/data.pkl"
_DIRECTORY_LIMIT = 1 << 26
"""Bytes; 600,000 records."""


class Record(NamedTuple):
    """A record as the directory describes it. Offsets are bytes from the file's start."""

    name: str
    header: int
    """Where its header begins."""
    size: int
    """Bytes of its data."""
    limit: int
    """Where the next record or the directory begins."""
    entry: int
    """Where its entry in the directory begins."""


@dataclass(frozen=True, eq=False, slots=True)
class Directory:
    """The records of a zip file of `torch.save`."""

    root: str
    """The folder that all names begin with, with its slash."""
    records: Mapping[str, Record]
    """By name without the root."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into an error that names the file.

    Raises:
        MscvtError: In place of any exception.
    """
    try:
        yield
    except MscvtError as error:
        raise MscvtError(f"{path}: {error.message}", hint=error.hint) from None
    except OSError as error:
        raise MscvtError(f"{path}: can't be read: {error.strerror or error}") from None
    except MemoryError:
        raise MscvtError(f"{path}: takes more memory to read than there is") from None
    except Exception as error:  # a damaged file can make a reader fail in any way
        said = (str(error).splitlines() or [""])[0]
        raise MscvtError(f"{path}: damaged: {type(error).__name__} {said[:200]!a}") from None


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """The descriptor of a file opened for reading; errors name the file."""
    with reading(path), path.open("rb") as file:
        yield file.fileno()


def read_at(descriptor: int, offset: int, count: int) -> bytes:
    """Exactly so many bytes at an offset of an open file.

    Raises:
        MscvtError: Where the file ends before.
    """
    data = os.pread(descriptor, count, offset) if offset >= 0 else b""
    if len(data) != count:
        raise MscvtError(f"ends before byte {offset + count:,}")
    return data


def directory_bytes(descriptor: int, start: int, length: int) -> tuple[int, int, bytes]:
    """Find the directory of a zip file.

    Args:
        descriptor: An open file.
        start: Where in it the zip file begins; offsets in the zip file count from there.
        length: Bytes of the zip file.

    Returns:
        Where the directory begins in the open file, how many entries it says it has, and its bytes.

    Raises:
        MscvtError: Where there is none.
    """
    no_zip = MscvtError(
        "not a zip file of torch.save (truncated, or of the format before torch 1.6)",
        hint="Copy or download it again; load what an old torch wrote with that torch and save it anew.",
    )
    if length < END.size:
        raise no_zip
    end = start + length - END.size
    signature, *end_record, comment = END.unpack(read_at(descriptor, end, END.size))
    if signature != b"PK\5\6" or comment:
        raise no_zip
    locator = end - LOCATOR.size
    if locator >= start and (found := read_at(descriptor, locator, LOCATOR.size)).startswith(b"PK\6\7"):
        _, disk, end, disks = LOCATOR.unpack(found)
        end += start
        if end != locator - END64.size or end < start or disk or disks > 1:
            raise MscvtError("its end records contradict each other")
        signature, _, _, _, *wide_record = END64.unpack(read_at(descriptor, end, END64.size))
        for narrow, wide, sentinel in zip(end_record, wide_record, (MAX16,) * 4 + (MAX32,) * 2, strict=True):
            if signature != b"PK\6\6" or narrow not in (wide, sentinel):
                raise MscvtError("its end records contradict each other")
        end_record = wide_record
    disk, directory_disk, here, entries, size, offset = end_record
    if disk or directory_disk or here != entries or start + offset + size != end or size > _DIRECTORY_LIMIT:
        raise MscvtError("its directory is not where its end record says, or too large")
    return start + offset, entries, read_at(descriptor, start + offset, size)


def bits_but_checksums(raw: bytes) -> int:
    """A mask of a directory, in little-endian order: what is the same in files that differ in data alone.

    Raises:
        MscvtError: Where it is no directory.
    """
    mask, zeros = bytearray(b"\xff" * len(raw)), bytes(4)
    for at, _ in _entries(raw):
        mask[at + ENTRY_CRC : at + ENTRY_CRC + 4] = zeros
    return int.from_bytes(mask, "little")


def _entries(raw: bytes) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Where the entries of a directory begin, and what is in each."""
    at = 0
    while at < len(raw):
        if len(raw) - at < ENTRY_SIZE or (found := _IN_ENTRY.unpack_from(raw, at))[0] != b"PK\1\2":
            raise MscvtError("its directory is damaged")
        yield at, found
        at += ENTRY_SIZE + found[5] + found[6] + found[7]
    if at != len(raw):
        raise MscvtError("its directory is damaged")


def parse_directory(raw: bytes, count: int, offset: int, start: int) -> Directory:
    """The records that a directory describes.

    Args:
        raw: The directory's bytes.
        count: How many entries it should have.
        offset: Where it begins in the file.
        start: Where the zip file begins in the file.

    Raises:
        MscvtError: Where records are compressed, overlap, share a name or lie elsewhere than `torch.save` puts them.
    """
    found = sorted((_parse_entry(raw, at, entry, start) for at, entry in _entries(raw)), key=itemgetter(0))
    if len(found) != count or not found:
        raise MscvtError(f"its directory has {len(found)} entries and says that it has {count}")
    if found[0][0] != start:
        raise MscvtError("its first record does not begin at byte 0, as those of torch.save do")
    limits = [header for header, *_ in found[1:]] + [offset]
    records: dict[str, Record] = {}
    folded: set[str] = set()
    pickles = [name for _, name, _, _ in found if name.casefold().endswith(PICKLE)]
    if len(pickles) != 1:
        raise MscvtError(f"has {len(pickles)} records {PICKLE[1:]}, expected one")
    root = pickles[0][: 1 - len(PICKLE)]
    for (header, name, size, entry), limit in zip(found, limits, strict=True):
        if header + HEADER.size + len(name) + size > limit:
            raise MscvtError(f"its record {name[:100]!a} overlaps the one behind it, or lies outside of the file")
        # torch finds records without regard to case
        if (alike := name.casefold()) in folded:
            raise MscvtError(f"two of its records have the name {name[:100]!a}")
        folded.add(alike)
        if not name.startswith(root):
            raise MscvtError(f"its record {name[:100]!a} is not in the folder {root[:100]!a} of the others")
        records[name[len(root) :]] = Record(name, header, size, limit, offset + entry)
    if f"{root}constants.pkl".casefold() in folded:
        raise MscvtError("is a TorchScript archive, which holds code", hint="Save the state dict alone.")
    return Directory(root, records)


class Directories:
    """Directories that were read. Most files of a checkpoint have the same, but for checksums."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int, int], dict[int, dict[int, Directory]]] = {}

    def parse(self, raw: bytes, count: int, offset: int, start: int) -> Directory:
        """The same as `parse_directory`, and the same object for all that differ in checksums alone."""
        bits = int.from_bytes(raw, "little")
        masks = self._known.setdefault((len(raw), count, offset, start), {})
        for mask, alike in masks.items():
            if (directory := alike.get(bits & mask)) is not None:  # then its entries begin where those of that one do
                return directory
        directory = parse_directory(raw, count, offset, start)
        mask = bits_but_checksums(raw)
        masks.setdefault(mask, {})[bits & mask] = directory
        return directory


def _parse_entry(raw: bytes, at: int, entry: tuple[Any, ...], start: int) -> tuple[int, str, int, int]:
    """Where a record's header begins, its name, its bytes, and where its entry begins in the directory."""
    _, flags, method, stored, size, named, extra, _, disk, header = entry
    name = raw[at + ENTRY_SIZE : at + ENTRY_SIZE + named].decode()
    if method or flags & _OTHER_FLAGS:
        raise MscvtError(f"its record {name[:100]!a} is compressed or encrypted")
    if MAX32 in (size, stored, header):
        wide = _wide(raw[at + ENTRY_SIZE + named : at + ENTRY_SIZE + named + extra])
        size = next(wide) if size == MAX32 else size
        stored = next(wide) if stored == MAX32 else stored
        header = next(wide) if header == MAX32 else header
    if size != stored or disk:
        raise MscvtError(f"its record {name[:100]!a} has {stored:,} bytes in the file and should have {size:,}")
    return start + header, name, size, at


def _wide(extra: bytes) -> Iterator[int]:
    """The numbers of 64 bits in an entry's or header's extra field; the last one may be half as long and is no size."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            values = extra[at + 4 : at + 4 + length]
            yield from (value for (value,) in struct.iter_unpack("<Q", values[: length // 8 * 8]))
        at += 4 + length
    raise MscvtError("its directory lacks a size of 64 bits")


def data_start(descriptor: int, record: Record) -> int:
    """Where a record's data begins, in bytes from the file's start, as the header in front of it says.

    Raises:
        MscvtError: Where header and directory contradict each other.
    """
    text, header, nbytes, limit, _ = record
    name = text.encode()
    head = read_at(descriptor, header, _HEADER_SIZE + len(name))
    signature, flags, method, stored, size, named, extra = _IN_HEADER.unpack_from(head)
    begin: int = header + _HEADER_SIZE + named + extra
    same = signature == b"PK\3\4" and not method and not flags & _OTHER_FLAGS and head.endswith(name)
    is_deferred = flags & DEFERRED and stored == size == 0
    if same and not is_deferred and not (stored == size == nbytes):
        wide = _wide(read_at(descriptor, begin - extra, extra))
        same = stored in (nbytes, MAX32) and size == MAX32 and next(wide) == nbytes
    if not same or named != len(name) or begin + nbytes > limit:
        raise MscvtError(f"the header of its record {text[:100]!a} contradicts the directory")
    return begin
