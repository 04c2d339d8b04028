"""The zip file around a pickle of `torch.save`: its records, and what the pickle would call, read as data."""

from __future__ import annotations

import hashlib
import pickletools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mscvt.errors import MscvtError

_PICKLE = "/data.pkl"
_PICKLE_LIMIT = 1 << 26
"""Bytes; the pickle describes tensors and does not hold them. Those of the largest shards are some megabytes."""
_NESTING_LIMIT = 1000
"""Tuples in tuples; a tensor's description has three. Python's hash of 300,000 overruns the stack."""
_NESTS = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        if not zipfile.is_zipfile(path):
            raise MscvtError(
                f"{path}: not a zip file of torch.save (truncated, or of the format before torch 1.6)",
                hint="Download it again, or load it with an old torch and save it anew.",
            )
        with zipfile.ZipFile(path) as archive:
            yield archive
    except OSError as error:
        raise MscvtError(f"{path}: can't be read: {error}") from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, RuntimeError) as error:
        raise MscvtError(f"{path}: damaged zip file: {error}") from None


def record_starts(path: Path) -> list[int]:
    """Where each record's header begins, in bytes, and last where the records end; sorted.

    Raises:
        MscvtError: Where the file is no readable zip file.
    """
    with _opened(path) as archive:
        return sorted({record.header_offset for record in archive.infolist()} | {archive.start_dir})


def skeleton(path: Path) -> bytes:
    """A digest of all that a reader makes tensors' names, shapes and places from: the pickle, and where records lie.

    Raises:
        MscvtError: As `globals_in_pickle`.
    """
    with _opened(path) as archive:
        _check_records(path, archive)
        digest = hashlib.sha256(str(archive.start_dir).encode())
        for record in archive.infolist():
            digest.update(f"{record.filename}\0{record.header_offset} {record.file_size}\n".encode())
            if record.filename.endswith(_PICKLE):
                if record.file_size > _PICKLE_LIMIT:
                    raise MscvtError(f"{path}: its pickle has {record.file_size} bytes, more than any checkpoint's")
                digest.update(archive.read(record))
    return digest.digest()


def globals_in_pickle(path: Path) -> set[str]:
    """The full names of everything that the pickle of a file of torch.save refers to; nothing is looked up.

    Raises:
        MscvtError: Where the archive or the pickle would make a reader blow up: compressed records, records
            beyond the file, two of one name, a pickle that is too large or nested too deep.
    """
    with _opened(path) as archive:
        _check_records(path, archive)
        pickles = [record for record in archive.infolist() if record.filename.endswith(_PICKLE)]
        if len(pickles) != 1:
            raise MscvtError(f"{path}: has {len(pickles)} records {_PICKLE[1:]}, expected one")
        if pickles[0].file_size > _PICKLE_LIMIT:
            raise MscvtError(f"{path}: its pickle has {pickles[0].file_size} bytes, more than any checkpoint's")
        data = archive.read(pickles[0])
    try:
        return _globals(path, data)
    except MscvtError:
        raise
    except Exception as error:  # pickletools fails in many ways on what is no pickle
        raise MscvtError(f"{path}: its pickle is damaged: {error}") from None


def _check_records(path: Path, archive: zipfile.ZipFile) -> None:
    records = archive.infolist()
    size = path.stat().st_size
    for record in records:
        if record.compress_type != zipfile.ZIP_STORED or max(record.file_size, record.compress_size) > size:
            raise MscvtError(f"{path}: its record {record.filename!r} is compressed or larger than the file")
    # torch finds records without regard to case, and the directory by its own offset
    if len({record.filename.casefold() for record in records}) != len(records):
        raise MscvtError(f"{path}: two of its records have the same name")
    if not records or min(record.header_offset for record in records) != 0:
        raise MscvtError(f"{path}: its first record does not begin at byte 0, as those of torch.save do")
    if any(record.filename.casefold().endswith("/constants.pkl") for record in records):
        raise MscvtError(f"{path}: is a TorchScript archive, which holds code", hint="Save the state dict alone.")
    order = next((record for record in records if record.filename.endswith("/byteorder")), None)
    if order is not None and (order.file_size > 8 or archive.read(order) != b"little"):
        raise MscvtError(f"{path}: was not saved by a little-endian machine", hint="Save it anew on one.")


def _globals(path: Path, data: bytes) -> set[str]:
    """Walk a pickle's opcodes; of its stack only the depth of nesting is followed."""
    found: set[str] = set()
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[int, int] = {}
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name == "GLOBAL":
            module, _, attribute = str(argument).partition(" ")
            found.add(f"{'builtins' if module == '__builtin__' else module}.{attribute}")
        if name == "PROTO" and argument != 2:
            raise MscvtError(
                f"{path}: its pickle has protocol {argument}, torch reads only 2 without running code",
                hint="Save it again with the default pickle_protocol of torch.save.",
            )
        if name == "MARK":
            marks.append(len(stack))
            continue
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[int(argument or 0)] = stack[-1]
            continue
        if name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument or 0)])
            continue
        from_mark = pickletools.markobject in opcode.stack_before
        taken = marks.pop() if from_mark else len(stack) - len(opcode.stack_before)
        if from_mark and name != "TUPLE":
            taken -= 1  # APPENDS and SETITEMS also take what they fill
        depth = max(stack[taken:], default=0) + (name in _NESTS)
        if taken < 0 or depth > _NESTING_LIMIT:
            raise MscvtError(f"{path}: its pickle is damaged or nested more than {_NESTING_LIMIT} tuples deep")
        del stack[taken:]
        stack += [depth] * len(opcode.stack_after)
    return found
