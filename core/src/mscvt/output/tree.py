"""Looking into folders, and removing exact paths from them, without following a link."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from mscvt.errors import MscvtError


class Entry(NamedTuple):
    """Something in a folder."""

    path: str
    """Below the folder."""
    kind: Literal["file", "folder", "other"]
    """A regular file, a folder with nothing in it, or anything else: a link, a socket."""


def entries(folder: Path, inside: str = "") -> Iterator[Entry]:
    """All files, links and empty folders below a folder, sorted; a folder that is removed meanwhile has none."""
    try:
        with os.scandir(folder / inside) as found:
            there = sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in there:
        path = f"{inside}/{entry.name}" if inside else entry.name
        if not entry.is_dir(follow_symlinks=False):
            yield Entry(path, "file" if entry.is_file(follow_symlinks=False) else "other")
            continue
        is_empty = True
        for below in entries(folder, path):
            is_empty = False
            yield below
        if is_empty:
            yield Entry(path, "folder")


def size_of(path: Path) -> int | None:
    """Bytes of a regular file; None where there is none."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def make_folders(root: Path, file: str) -> Path:
    """Make the folders that a file below `root` lies in; returns the file's path.

    Raises:
        MscvtError: Where something else than a folder has the name of one.
    """
    path = root
    for name in Path(file).parts[:-1]:
        path /= name
        with suppress(FileExistsError):
            path.mkdir()
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise MscvtError(f"{path}: is not a folder", hint="Remove it.")
    return root / file


def remove_files(folder: Path, files: Iterable[str]) -> None:
    """Remove exactly these files and the folders that are empty without them; anything else stays."""
    parents: set[Path] = {folder}
    for file in files:
        (folder / file).unlink(missing_ok=True)
        parents.update(p for p in (folder / file).parents if p.is_relative_to(folder))
    for parent in sorted(parents, key=lambda path: len(path.parts), reverse=True):
        with suppress(OSError):  # not empty, or not there
            parent.rmdir()


def foreign(folder: Path, known: Collection[str], limit: int = 5) -> list[str]:
    """The first few things below a folder that are not regular files with known paths."""
    found: list[str] = []
    for entry in entries(folder):
        if entry.kind != "file" or entry.path not in known:
            found.append(entry.path)
            if len(found) == limit:
                break
    return found
