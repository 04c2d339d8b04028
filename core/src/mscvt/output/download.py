"""A folder that is filled from a hub: what it shall hold, and what of that is not there yet.

    DIR/NAME                     a file of the repository; whole, and what the hub states
    DIR/.mscvt-download.json     which repository, which revision, and bytes and checksum of each file
    DIR/.mscvt-download/lock     held by the run that fills the folder
    DIR/.mscvt-download/NAME.part, NAME    on its way, or not looked at yet

The record is written before the first file; the folder beside it is there for as long as files are missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mscvt.errors import MscvtError
from mscvt.formats.json_files import parse_json
from mscvt.formats.sums import make_sum
from mscvt.hubs.hub import HubFile
from mscvt.hubs.transfer import PART
from mscvt.output.disk import sync, write_whole
from mscvt.output.locks import is_locked, open_lock
from mscvt.output.tree import entries, make_folders, remove_files, size_of
from mscvt.records import dataclass

RECORD = ".mscvt-download.json"
STAGING = ".mscvt-download"
_MARK = "a download of mscvt"
_LIMIT = 64 << 20
"""Bytes of a record; a million files would not fill it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What is downloaded."""

    source: str
    repository: str
    asked: str | None
    """The revision that was asked for; None for the main branch."""
    revision: str
    """The one that this was when the download began; a commit where the hub tells it."""
    files: Mapping[str, HubFile]
    """By path below the folder."""
    kept: tuple[str, ...] = ()
    """Those that were there before the download began."""

    def command(self, folder: Path) -> list[str]:
        """The words of the command that fills a folder with it."""
        source = [] if self.source == "huggingface" else ["--source", self.source]
        revision = ["--revision", self.asked] if self.asked else []
        return ["mscvt", "download", self.repository, "--to", str(folder), *source, *revision]


def read_origin(folder: Path) -> Origin | None:
    """What a folder was filled with, or is to be; None where nothing is recorded.

    Raises:
        MscvtError: Where the record is damaged, or another program's.
    """
    path = folder / RECORD
    try:
        with path.open("rb") as file:
            text = file.read(_LIMIT)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise MscvtError(f"{path}: can't be read: {error.strerror}") from None
    origin = _parse(parse_json(text, path))
    if origin is None:
        raise MscvtError(f"{path}: is damaged, or another program's", hint="Remove it, and download again.")
    return origin


def _parse(record: Any) -> Origin | None:
    if not isinstance(record, dict) or record.get("what") != _MARK or not isinstance(record.get("files"), dict):
        return None
    files = {}
    for name, entry in record["files"].items():
        size = entry.get("bytes") if isinstance(entry, dict) else None
        if type(size) is not int or size < 0 or not is_inside(name):
            return None
        stated = (make_sum(algorithm, entry.get(algorithm)) for algorithm in ("sha256", "git-sha1"))
        files[name] = HubFile(name, size, next(filter(None, stated), None))
    source, repository, revision = (record.get(name) for name in ("source", "repository", "revision"))
    asked, kept = record.get("asked"), record.get("kept")
    if not all(isinstance(word, str) and word.isprintable() for word in (source, repository, revision, asked or "")):
        return None
    if not isinstance(kept, list) or not set(map(str, kept)) <= files.keys():
        return None
    return Origin(str(source), str(repository), asked, str(revision), files, tuple(map(str, kept)))


def is_inside(name: str) -> bool:
    """Whether a path stays below the folder that it is put into, and away from what is ours there."""
    parts = name.split("/")
    return name.isprintable() and "\\" not in name and not any(part in ("", "..") or part[0] == "." for part in parts)


class DownloadFolder:
    """A folder that this run fills; nobody else does from `open` to `close`.

    Attributes:
        folder: The folder.
        origin: What is recorded; None where nothing is yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.staging = folder / STAGING
        self.origin: Origin | None = None
        self._lock: int | None = None
        self._made: list[Path] = []

    def open(self) -> None:
        """Make the folder where it is missing, and be alone in it.

        Raises:
            MscvtError: Where another run fills it, or it can't be made.
        """
        if self.staging.is_symlink():
            raise MscvtError(f"{self.staging}: is a link, which no download makes", hint="Remove it.")
        try:
            for path in (*reversed(self.folder.parents), self.folder, self.staging):
                if not path.exists():
                    path.mkdir(exist_ok=True)
                    self._made.append(path)
            self._lock = open_lock(self.staging / "lock")
        except OSError as error:
            raise MscvtError(
                f"{error.filename or self.folder}: can't be made: {error.strerror}",
                hint="Give a folder that may be written to with --to.",
            ) from None
        if any(entry.kind == "other" for entry in entries(self.staging)):
            raise MscvtError(f"{self.staging}: holds a link or a socket, which no download makes", hint="Remove it.")
        if self._lock is None:
            raise MscvtError(
                f"{self.folder}: another run is downloading into it", hint="Wait for it, or stop it first."
            )
        self.origin = read_origin(self.folder)

    def begin(self, origin: Origin) -> None:
        """Record what the folder shall hold."""
        files = {
            name: {"bytes": wanted.nbytes, **({wanted.sum.algorithm: wanted.sum.value} if wanted.sum else {})}
            for name, wanted in origin.files.items()
        }
        record = {
            "what": _MARK,
            "source": origin.source,
            "repository": origin.repository,
            "asked": origin.asked,
            "revision": origin.revision,
            "kept": list(origin.kept),
            "files": files,
        }
        write_whole(self.folder / RECORD, json.dumps(record, indent=1) + "\n")
        self.origin = origin

    def missing(self) -> list[str]:
        """Files that are not there, or have another size than the hub states."""
        return [] if self.origin is None else missing_files(self.folder, self.origin)

    def take(self, name: str) -> None:
        """Give a file its name: it is whole, and what the hub states."""
        arrived = self.staging / name
        sync(arrived)
        arrived.replace(make_folders(self.folder, name))

    def finish(self) -> None:
        """Note that nothing is missing, by removing what files on their way need."""
        sync(self.folder)
        self._remove_staging()

    def close(self) -> None:
        """Let others in; where nothing was begun, nothing is left."""
        if self._lock is None:
            return
        if not self.missing():
            self._remove_staging()
        if self.origin is None:
            for path in reversed(self._made):
                with suppress(OSError):  # somebody has put something there
                    path.rmdir()
        os.close(self._lock)
        self._lock = None

    def _remove_staging(self) -> None:
        remove_files(self.staging, [entry.path for entry in entries(self.staging) if entry.kind == "file"])

    def discard(self) -> None:
        """Remove what this download has brought, and nothing else."""
        if self.origin is None:
            return
        others = {*self.origin.kept, *self.missing()}  # what has another size now, somebody else has changed
        files = [name for name in self.origin.files if name not in others and _is_below(self.folder, name)]
        self._remove_staging()
        remove_files(self.folder, [*files, RECORD])
        self.origin = None


def _is_below(folder: Path, name: str) -> bool:
    """Whether a file lies in the folder itself, by no link to another one."""
    return (folder / name).parent.resolve().is_relative_to(folder.resolve())


@dataclass(frozen=True, slots=True)
class UnfinishedDownload:
    """What a folder still lacks."""

    folder: Path
    origin: Origin
    missing: tuple[str, ...]
    """Files that are not there."""
    arrived: int
    """Bytes that are there, of whole files and of others."""
    is_running: bool
    """Whether a run is at work on it."""


def look_at_download(folder: Path) -> UnfinishedDownload | None:
    """The unfinished download into a folder; None where there is none.

    Raises:
        MscvtError: Where its record is damaged.
    """
    origin = read_origin(folder)
    staging = folder / STAGING
    if origin is None or not staging.is_dir():
        return None
    missing = tuple(missing_files(folder, origin))
    parts = (staging / f"{name}{ending}" for name in missing for ending in ("", PART))
    whole = sum(file.nbytes for name, file in origin.files.items() if name not in missing)
    arrived = whole + sum(size_of(part) or 0 for part in parts)
    return UnfinishedDownload(folder, origin, missing, arrived, is_locked(staging / "lock"))


def missing_files(folder: Path, origin: Origin) -> list[str]:
    """The files of a download that are not there, or have another size than the hub states."""
    return [name for name, wanted in origin.files.items() if _size(folder / name) != wanted.nbytes]


def _size(path: Path) -> int | None:
    """Bytes of a file, links followed: the owner of the folder may have moved it to another disk."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None
