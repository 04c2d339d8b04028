"""An output that is either whole or not there: grown in a hidden sibling, journalled, renamed when complete.

    .TARGET.mscvt/gate               held for a moment by a run that begins or ends
    .TARGET.mscvt/lock               held by whoever is writing, shared by runs that write parts
    .TARGET.mscvt/locks/FILE         held by the run that writes this part
    .TARGET.mscvt/data/              the output itself, renamed to TARGET at the end
    .TARGET.mscvt/conversion.json    what is being converted; another conversion is refused
    .TARGET.mscvt/journal/SELECTION  the files of a run, then numbers of finished units, whose bytes are on the disk
    .TARGET.mscvt/complete/FILE      empty, one for each output file that is whole
    .TARGET.mscvt/replaced/          what TARGET was before, between the two renames of --overwrite

`data` is made before the record and leaves only by the last rename: a record without data means that all is done.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mscvt.errors import MscvtError
from mscvt.output.disk import sync, write_whole
from mscvt.output.journal import drop_journals
from mscvt.output.locks import gate, open_lock, try_lock

REPLACEABLE = ("latest_checkpointed_iteration.txt", "iter_0000001", "model*.safetensors", "*.json")
"""Patterns of all that `--overwrite` may replace, where a conversion does not say so itself."""


class Staging:
    """The hidden folder of one conversion; locked from `open` to `close`."""

    def __init__(self, target: Path, identity: Mapping[str, Any], replaceable: Sequence[str] = REPLACEABLE) -> None:
        """Place it beside the target; a link is followed, so that its folder is replaced and not the link."""
        self.target = Path(os.path.realpath(target))
        self.replaceable = replaceable
        self.root = self.target.parent / f".{self.target.name}.mscvt"
        self.data = self.root / "data"
        self.identity: dict[str, Any] = json.loads(json.dumps(identity, sort_keys=True))
        self.is_committed = False
        """Whether an earlier run ended after the last rename, so that nothing is left to be done."""
        self._record = self.root / "conversion.json"
        self._replaced = self.root / "replaced"
        self._lock: int | None = None
        self._locks: list[int] = []

    def open(self, *, overwrite: bool, resume: bool, shared: bool, files: Sequence[str]) -> None:
        """Begin or go on.

        Args:
            overwrite: Replace an existing result, or discard unfinished work of another conversion.
            resume: Insist that there is unfinished work of this conversion.
            shared: Let other runs write other files of the same conversion meanwhile.
            files: What this run writes, as paths below the target.

        Raises:
            MscvtError: Where the target is taken, somebody else is writing, or the unfinished work is another's.
        """
        self._check_place()
        if not self.root.exists():
            self._check_free(overwrite)  # so that nothing is made where nothing may be
        with gate(self.root) as entered:
            try:
                is_alone = entered and self._lock_run(shared)
                self._begin(overwrite, resume, is_alone)
                if self.is_committed:
                    return
                for name in ("journal", "complete", "locks"):
                    (self.root / name).mkdir(exist_ok=True)
                if shared:
                    self._lock_files(files)
                    try_lock(self._held(), self.root, shared=True)
            except BaseException:
                self._leave()
                raise

    def _check_place(self) -> None:
        parent = self.target.parent
        parent.mkdir(parents=True, exist_ok=True)
        if not self.target.exists():
            return
        if not self.target.is_dir():
            raise MscvtError(f"{self.target}: exists and is not a folder")
        if self.target.stat().st_dev != parent.stat().st_dev or self.target == parent:
            raise MscvtError(
                f"{self.target}: is a mount point, so nothing can be renamed to it",
                hint="Give a folder inside of it with --save-dir.",
            )

    def _check_free(self, overwrite: bool) -> None:
        """Refuse a target that holds something, unless it is all what this conversion writes and may be replaced."""
        found = sorted(path.name for path in self.target.iterdir()) if self.target.exists() else []
        if not found:
            return
        if not overwrite:
            raise MscvtError(
                f"{self.target}: exists and is not empty ({', '.join(found[:5])})",
                hint="Choose another --save-dir, or replace it with --overwrite.",
            )
        foreign = [name for name in found if not any(fnmatchcase(name, pattern) for pattern in self.replaceable)]
        if foreign:
            raise MscvtError(
                f"{self.target}: is no checkpoint that this conversion could have written, so --overwrite won't "
                f"replace it (it holds {', '.join(foreign[:5])})",
                hint="Choose another --save-dir, or move these away first.",
            )

    def _lock_run(self, shared: bool) -> bool:
        """Take the lock of all runs; returns whether nobody else has a share in it.

        Raises:
            MscvtError: Where somebody writes who doesn't share, or does and this run doesn't.
        """
        self._lock = open_lock(self.root / "lock")
        if self._lock is not None:
            return True
        if shared:
            self._lock = open_lock(self.root / "lock", shared=True)
        if self._lock is None:
            raise self._taken()
        return False

    def _held(self) -> int:
        if self._lock is None:
            raise self._taken()
        return self._lock

    def _taken(self) -> MscvtError:
        return MscvtError(f"{self.target}: another run is writing to it", hint="Wait for it, or stop it first.")

    def _begin(self, overwrite: bool, resume: bool, is_alone: bool) -> None:
        """Make the folder this conversion's, or see that it is already."""
        self._held()
        if self._replaced.exists() and self.data.exists() and not self.target.exists():
            self._replaced.rename(self.target)  # a run ended between its two renames: back to before the first
        there = self._recorded()
        if there == self.identity and not self.data.exists() and self.target.exists():
            self.is_committed = True
            return
        self._check_free(overwrite)
        is_unfinished = there is not None and not self._is_bare()
        if resume and not is_unfinished:
            raise MscvtError(
                f"{self.target}: there is no unfinished conversion to resume", hint="Leave out --resume to begin one."
            )
        if there == self.identity and self.data.exists():
            return
        if is_unfinished and not overwrite:
            raise MscvtError(
                f"{self.target}: an unfinished conversion is there and differs from this one in "
                f"{', '.join(_differing(there, self.identity))}",
                hint="Repeat the command that began it, or discard its work with --overwrite.",
            )
        if not is_alone:
            raise self._taken()
        self._record.unlink(missing_ok=True)
        sync(self.root)
        for name in ("data", "journal", "complete"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        self.data.mkdir()
        write_whole(self._record, json.dumps(self.identity, indent=1, sort_keys=True))

    def _recorded(self) -> Any:
        """The identity of the conversion that is there; None where there is none."""
        try:
            return json.loads(self._record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            return "damaged"

    def _lock_files(self, files: Iterable[str]) -> None:
        """Make sure that no other run writes the same files."""
        for file in files:
            descriptor = open_lock(self.root / "locks" / _flat(file))
            if descriptor is None:
                raise MscvtError(
                    f"{self.target}: another run is writing some of the same files, {file}",
                    hint="Give each run its own part with --only.",
                )
            self._locks.append(descriptor)

    def forget(self, files: Iterable[str]) -> None:
        """Forget all work on files that are not what they were."""
        lost = set(files)
        for file in lost:
            self._mark(file).unlink(missing_ok=True)
        if lost:
            sync(self.root / "complete")
            drop_journals(self.root / "journal", lost)

    def discard(self, files: Sequence[str]) -> None:
        """Remove files and all work on them, so that the same command makes them anew."""
        self.forget(files)
        for file in files:
            (self.data / file).unlink(missing_ok=True)

    def sync_names(self, files: Iterable[str]) -> None:
        """Make sure that files can't lose their names by a power failure."""
        for folder in sorted({parent for file in files for parent in (self.data / file).parents}):
            if folder.is_relative_to(self.target.parent):
                sync(folder)

    def mark_whole(self, paths: Iterable[str]) -> None:
        """Note that output files are finished."""
        for path in paths:
            self._mark(path).touch()
        sync(self.root / "complete")

    def _mark(self, path: str) -> Path:
        return self.root / "complete" / _flat(path)

    def complete(self, files: Iterable[str], finish: Callable[[Path], None], overwrite: bool) -> bool:
        """Give the output its final name, if all files are whole and nobody is at work on any of them.

        Args:
            files: All files of the output.
            finish: Writes what makes the output complete into its folder.
            overwrite: Whether a result that is there may be replaced; it goes away only after the rename.

        Returns:
            False where files are missing; the run that finishes the last of them completes the output.
        """
        with gate(self.root) as entered:
            if not entered:
                raise self._taken()
            is_whole = all(self._mark(file).exists() for file in files)
            if not (is_whole and try_lock(self._held(), self.root)):
                self._leave()
                return False
            finish(self.data)
            self._sync_data()
            self._check_free(overwrite)
            shutil.rmtree(self._replaced, ignore_errors=True)
            if self.target.exists() and any(self.target.iterdir()):
                self.target.rename(self._replaced)
            self.data.rename(self.target)
            sync(self.target.parent)
            self._remove()
            self._release()
        return True

    def _sync_data(self) -> None:
        for folder, _, names in os.walk(self.data):
            for name in names:
                sync(Path(folder) / name)
            sync(Path(folder))

    def _remove(self) -> None:
        """Remove the hidden folder, the record last of what tells where an interrupted run was."""
        for name in ("data", "journal", "complete", "locks", "replaced"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        for name in ("conversion.json.new", "conversion.json", "lock", "gate"):
            (self.root / name).unlink(missing_ok=True)
        with suppress(OSError):  # another run has just come; the folder is its now
            self.root.rmdir()

    def close(self) -> None:
        """Let go of all locks; the work that is done stays, and where there is none, nothing does."""
        if self._lock is not None:
            with gate(self.root) as entered:
                if entered:
                    self._leave()
        self._release()
        for descriptor in self._locks:
            os.close(descriptor)
        self._locks.clear()

    def _leave(self) -> None:
        """Stop being one of the runs; inside the gate, so that the last one who comes to complete finds nobody."""
        if self._lock is not None and self._is_bare() and try_lock(self._lock, self.root):
            self._remove()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None

    def _is_bare(self) -> bool:
        """Whether there is nothing worth keeping."""
        if self._replaced.exists() and not self.target.exists():
            return False
        return not any(names for _, _, names in os.walk(self.data))


def _flat(path: str) -> str:
    return path.replace("/", "__")


def _differing(there: Any, wanted: Mapping[str, Any]) -> list[str]:
    if not isinstance(there, dict):
        return ["everything (its record is damaged)"]
    return [name for name in sorted(there.keys() | wanted.keys()) if there.get(name) != wanted.get(name)]
