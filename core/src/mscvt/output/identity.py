"""What a source is: compared by the runs that go on with the same work, and again when everything was read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mscvt.errors import Faults, MscvtError

_HEAD = 1 << 16
"""Bytes of each file that are looked at, which differ from file to file: of headers, or of the first weights."""
_STATED = ("device", "inode", "size", "mtime")


def source_identity(folder: Path, files: Sequence[Path]) -> dict[str, Any]:
    """What tells a source from every other one, as plain values.

    Args:
        folder: The folder that was given.
        files: The files that are read, inside of it or not.

    Returns:
        The folder without links, and for each file its name, device, inode, size in bytes, time of its last change in
        nanoseconds and the SHA-256 of its first 64 KiB.

    Raises:
        MscvtError: Where a file can't be read.
    """
    return {
        "folder": os.path.realpath(folder),
        "files": {os.path.relpath(path, folder): {**_status(path), "head": _digest(path)} for path in files},
    }


def check_unchanged(source: Mapping[str, Any]) -> None:
    """Compare the files of a source with what they were when `source_identity` looked at them.

    Raises:
        MscvtError: Where one has changed, or is not there any more.
    """
    faults = Faults()
    for name, known in source["files"].items():
        path = Path(source["folder"], name)
        now = _status(path)
        if changed := [what for what in _STATED if now[what] != known[what]]:
            faults.add(
                f"{path} has another {', '.join(changed)} than before",
                hint="Let nothing write to the source, and begin anew with --overwrite.",
            )
    faults.raise_if_any("the source was changed while it was read, so the result would be a mixture")


def comparable(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity without the numbers of devices: network file systems have another one on each machine."""
    source = identity.get("source")
    if not isinstance(source, Mapping):
        return dict(identity)
    files = {name: {k: v for k, v in known.items() if k != "device"} for name, known in source["files"].items()}
    return {**identity, "source": {**source, "files": files}}


def differences(there: Any, wanted: Any, where: str = "") -> list[str]:
    """Every value in which two identities differ, each in one line."""
    if isinstance(there, dict) and isinstance(wanted, dict):
        names = sorted(there.keys() | wanted.keys())
        lines = []
        for name in names:
            inner = f"{where}, {name}" if where else name
            lines += differences(there.get(name), wanted.get(name), inner)
        return lines
    return [] if there == wanted else [f"{where}: {_said(there)} there, {_said(wanted)} here"]


def _said(value: Any) -> str:
    return "nothing" if value is None else str(value)


def _status(path: Path) -> dict[str, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise MscvtError(f"{path}: can't be read any more: {error.strerror}") from None
    return {"device": status.st_dev, "inode": status.st_ino, "size": status.st_size, "mtime": status.st_mtime_ns}


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read(_HEAD)).hexdigest()
    except OSError as error:
        raise MscvtError(f"{path}: can't be read: {error.strerror}") from None
