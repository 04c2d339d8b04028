"""The journal of a run: the files that it writes, in a first line of JSON, then a line for each finished unit."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from mscvt.output.disk import sync, write_whole


class Journal:
    """Remembers finished units, each only after its bytes have reached the disk."""

    def __init__(self, folder: Path, files: Sequence[str]) -> None:
        """Open the journal of a run that writes these files, and only these."""
        self.files = list(files)
        self.path = folder / hashlib.sha256("\n".join(files).encode()).hexdigest()[:16]
        self.descriptors: Sequence[int] = ()
        """The open files, which are synced before anything is noted."""
        self.seconds = 0.0
        """How long to collect units before they are noted; what is not noted is done again."""
        self._units: list[int] = []
        self._noted = time.monotonic()
        self._collecting, self._writing = threading.Lock(), threading.Lock()
        self._has_failed = False

    def finished_units(self) -> set[int]:
        """The units that earlier runs have noted; a line that a crash left half written is removed."""
        if not files_of(self.path):
            self.path.unlink(missing_ok=True)
            return set()
        text = self.path.read_bytes()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):  # the next line would continue it, and be another number
            os.truncate(self.path, whole)
        return {int(line) for line in text[:whole].split(b"\n")[1:] if line.isdigit()}

    def begin(self, descriptors: Sequence[int], seconds: float) -> None:
        """Write the first line where there is none, and note units every so many seconds from now on."""
        if not files_of(self.path):
            write_whole(self.path, json.dumps(self.files) + "\n")
        self.descriptors, self.seconds, self._noted = descriptors, seconds, time.monotonic()

    def add(self, unit: int) -> None:
        """Take a finished unit; safe from many threads, of which at most one waits for the disk."""
        with self._collecting:
            self._units.append(unit)
            is_due = time.monotonic() - self._noted >= self.seconds
            if is_due:
                self._noted = time.monotonic()
        if is_due:
            self.flush()

    def flush(self) -> None:
        """Note all units that were taken before.

        Raises:
            OSError: Where the disk is full or broken. Nothing is noted from then on: the system reports only
                once that bytes were lost, and the next sync would seem to succeed.
        """
        with self._writing:
            if self._has_failed:
                return
            with self._collecting:
                units, self._units = self._units, []
            try:
                for descriptor in self.descriptors:
                    os.fsync(descriptor)
                if units:
                    self._append(units)
            except OSError:
                self._has_failed = True
                raise

    def _append(self, units: Iterable[int]) -> None:
        with self.path.open("a", encoding="ascii") as lines:
            lines.write("".join(f"{unit}\n" for unit in units))
            lines.flush()
            os.fsync(lines.fileno())


def drop_journals(folder: Path, files: Iterable[str]) -> None:
    """Remove every journal that is about one of these files."""
    lost = set(files)
    for path in folder.iterdir():
        if not lost.isdisjoint(files_of(path)):
            path.unlink(missing_ok=True)
    sync(folder)


def files_of(path: Path) -> list[str]:
    """The files that a journal is about; none where it doesn't say, which makes it worthless."""
    try:
        with path.open("rb") as lines:
            first = lines.readline()
        files = json.loads(first) if first.endswith(b"\n") else []
    except (FileNotFoundError, ValueError):
        return []
    return files if isinstance(files, list) else []
