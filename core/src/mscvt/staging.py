"""An output that is either whole or not there: grown in a hidden sibling, journalled, renamed when complete.

.TARGET.mscvt/lock               held by whoever is writing
.TARGET.mscvt/conversion.json    what is being converted; another conversion is refused
.TARGET.mscvt/data/              the output itself, renamed to TARGET at the end
.TARGET.mscvt/journal/SELECTION  numbers of finished units, written after their bytes have reached the disk
.TARGET.mscvt/complete/          one empty file for each output file that is whole
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mscvt.errors import MscvtError

_OURS = ("latest_checkpointed_iteration.txt", "iter_", "model.safetensors", "model-0", "pytorch_model")
"""What a folder must hold something of before `--overwrite` may replace it."""


class Staging:
    """The hidden folder of one conversion; locked from `open` to `close`."""

    def __init__(self, target: Path, identity: Mapping[str, Any]) -> None:
        self.target = Path(os.path.abspath(target))
        self.root = self.target.parent / f".{self.target.name}.mscvt"
        self.data = self.root / "data"
        self.identity: dict[str, Any] = json.loads(json.dumps(identity, sort_keys=True))
        self._locks: list[int] = []
        self._journal: Path | None = None

    def open(self, *, overwrite: bool, resume: bool, shared: bool, selection: str) -> set[int]:
        """Begin or go on.

        Args:
            overwrite: Replace an existing result, or discard unfinished work of another conversion.
            resume: Insist that there is unfinished work of this conversion.
            shared: Let other runs write other files of the same conversion meanwhile.
            selection: What this run writes, as a name for its journal.

        Returns:
            The units that were finished before.

        Raises:
            MscvtError: Where the target is taken, somebody else is writing, or the unfinished work is another's.
        """
        self._check_target(overwrite)
        had_work = (self.root / "conversion.json").exists()
        if resume and not had_work:
            raise MscvtError(
                f"{self.target}: there is no unfinished conversion to resume", hint="Leave out --resume to begin one."
            )
        (self.root / "journal").mkdir(parents=True, exist_ok=True)
        self._lock(self.root / "lock", shared=shared)
        self._claim(overwrite)
        for name in ("data", "journal", "complete"):
            (self.root / name).mkdir(exist_ok=True)
        self._journal = self.root / "journal" / hashlib.sha256(selection.encode()).hexdigest()[:16]
        return self._finished_units()

    def _check_target(self, overwrite: bool) -> None:
        parent = self.target.parent
        if not parent.is_dir():
            raise MscvtError(f"{parent}: no such folder", hint=f"Create it first: mkdir -p {parent}")
        if self.target.is_symlink() or (self.target.exists() and not self.target.is_dir()):
            raise MscvtError(f"{self.target}: exists and is not a folder")
        if not self.target.exists():
            return
        if self.target.stat().st_dev != parent.stat().st_dev:
            raise MscvtError(
                f"{self.target}: is a mount point, so nothing can be renamed to it",
                hint="Give a folder inside of it with --save-dir.",
            )
        found = sorted(path.name for path in self.target.iterdir())
        if not found:
            return
        if self.root.exists() and not self.data.exists():
            shutil.rmtree(self.root)  # all that a run left that ended between its last two steps
        if not overwrite:
            raise MscvtError(
                f"{self.target}: exists and is not empty ({', '.join(found[:5])})",
                hint="Choose another --save-dir, or replace it with --overwrite.",
            )
        if not any(name.startswith(_OURS) for name in found):
            raise MscvtError(
                f"{self.target}: is no checkpoint, so --overwrite won't replace it (it holds {', '.join(found[:5])})",
                hint="Choose another --save-dir.",
            )

    def _claim(self, overwrite: bool) -> None:
        """Make the folder this conversion's, or see that it is already."""
        record = self.root / "conversion.json"
        text = json.dumps(self.identity, indent=1, sort_keys=True)
        if record.exists():
            try:
                there = json.loads(record.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                there = None
            if there == self.identity:
                return
            if not overwrite:
                raise MscvtError(
                    f"{self.target}: an unfinished conversion is there and differs from this one in "
                    f"{', '.join(_differing(there, self.identity))}",
                    hint="Repeat the command that began it, or discard its work with --overwrite.",
                )
            self.discard()
        temporary = self.root / f"conversion.json.{os.getpid()}"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(record)

    def _lock(self, path: Path, *, shared: bool = False) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise MscvtError(
                f"{self.target}: another run is writing to it", hint="Wait for it, or stop it first."
            ) from None
        self._locks.append(descriptor)

    def lock_files(self, descriptors: Iterable[int]) -> None:
        """Make sure that no other run with another selection writes the same files.

        Raises:
            MscvtError: Where one does.
        """
        for descriptor in descriptors:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise MscvtError(
                    f"{self.target}: another run is writing some of the same files",
                    hint="Give each run its own part with --only.",
                ) from None

    def _finished_units(self) -> set[int]:
        if self._journal is None or not self._journal.exists():
            return set()
        lines = self._journal.read_text(encoding="ascii", errors="replace").split("\n")[:-1]
        return {int(line) for line in lines if line.isdigit()}

    def record(self, units: Sequence[int], descriptors: Iterable[int]) -> None:
        """Note finished units, after their bytes have reached the disk."""
        for descriptor in descriptors:
            os.fsync(descriptor)
        if self._journal is None or not units:
            return
        with self._journal.open("a", encoding="ascii") as journal:
            journal.write("".join(f"{unit}\n" for unit in units))
            journal.flush()
            os.fsync(journal.fileno())

    def is_whole(self, path: str) -> bool:
        """Whether an output file was finished, by this run or another."""
        return self._mark(path).exists()

    def mark_whole(self, paths: Iterable[str]) -> None:
        """Note that output files are finished."""
        for path in paths:
            self._mark(path).touch()

    def _mark(self, path: str) -> Path:
        return self.root / "complete" / path.replace("/", "__")

    def commit(self, overwrite: bool) -> None:
        """Rename the output to its final name; what was there before goes away only after that."""
        for folder in (self.data, *(path for path in self.data.rglob("*") if path.is_dir())):
            _sync_folder(folder)
        if self.target.exists():
            if any(self.target.iterdir()):
                if not overwrite:
                    raise MscvtError(f"{self.target}: was filled by somebody else meanwhile")
                self.target.rename(self.root / "replaced")
            else:
                self.target.rmdir()
        self.data.rename(self.target)
        _sync_folder(self.target.parent)
        shutil.rmtree(self.root, ignore_errors=True)

    def lock_commit(self) -> bool:
        """Be the one who completes the output; False where another run has done it."""
        try:
            descriptor = os.open(self.root / "commit.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._locks.append(descriptor)
        return self.data.exists()

    def discard(self) -> None:
        """Forget all work, so that the same command begins anew."""
        for name in ("data", "journal", "complete"):
            shutil.rmtree(self.root / name, ignore_errors=True)

    def close(self) -> None:
        """Let go of all locks; the work that is done stays."""
        for descriptor in self._locks:
            os.close(descriptor)
        self._locks.clear()


def _differing(there: Any, wanted: Mapping[str, Any]) -> list[str]:
    if not isinstance(there, dict):
        return ["everything (its record is damaged)"]
    return [name for name in sorted(there.keys() | wanted.keys()) if there.get(name) != wanted.get(name)]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
