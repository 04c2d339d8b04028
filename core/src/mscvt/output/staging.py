"""An output that is either whole or not there: grown in a hidden sibling, renamed when complete."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mscvt.errors import MscvtError
from mscvt.output.disk import sync
from mscvt.output.hidden import HiddenFolder
from mscvt.output.identity import comparable, differences
from mscvt.output.locks import gate, open_lock, try_lock
from mscvt.output.record import Record, open_record, whole_size
from mscvt.output.tree import entries, foreign, size_of


class Staging:
    """The runs of one conversion into one target; this one is among them from `open` to `close`.

    Attributes:
        target: Where the output will be, without links.
        root: The hidden folder.
        data: Where it grows.
        records: The record of each file that this run writes, locked.
        is_committed: Whether an earlier run ended after the last rename, so that nothing is left to be done.
    """

    def __init__(
        self,
        target: Path,
        identity: Mapping[str, Any],
        replaceable: Callable[[Path], Collection[str]],
        planned: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Place it beside the target; a link is followed, so that its folder is replaced and not the link.

        Args:
            target: Where the output will be.
            identity: Everything that its bytes depend on.
            replaceable: Given a folder with a checkpoint, the paths below it that `--overwrite` may replace.
            planned: What `planned_record` says of the output, for who looks at unfinished work.
        """
        self.target = Path(os.path.realpath(target))
        self.records: dict[str, Record] = {}
        self.is_committed = False
        self._hidden = HiddenFolder(self.target)
        self.root, self.data = self._hidden.root, self._hidden.data
        self._identity: dict[str, Any] = json.loads(json.dumps(comparable(identity), sort_keys=True))
        self._replaceable, self._planned = replaceable, planned
        self._lock: int | None = None

    def open(self, *, overwrite: bool, resume: bool, files: Sequence[str], again: bool = False) -> None:
        """Begin or go on, and lock those of the files that are not whole.

        Args:
            overwrite: Replace an existing result, or discard unfinished work of another conversion.
            resume: Insist that there is unfinished work of this conversion.
            files: What this run is to write, as paths below the target.
            again: Lock also what is whole.

        Raises:
            MscvtError: Where the target is taken, somebody else is writing, or the unfinished work is another's.
        """
        self._check_place()
        if os.path.lexists(self.root):
            was_there = (self.root / "gate").exists()
        else:
            self._check_free(overwrite)  # so that nothing is made where nothing may be
            was_there = False
        self._hidden.make()
        with gate(self.root) as entered:
            try:
                self._hidden.check()
            except MscvtError:
                if entered and not was_there:
                    (self.root / "gate").unlink()
                raise
            try:
                is_alone = entered and self._join()
                self._begin(overwrite, resume, is_alone)
                if not self.is_committed:
                    self._lock_files(files, again)
                    try_lock(self._held(), self.root, shared=True)
            except BaseException:
                self._leave()
                raise

    def _check_place(self) -> None:
        parent = self.target.parent
        if not self.target.exists():
            return
        if not self.target.is_dir():
            raise MscvtError(f"{self.target}: exists and is not a folder")
        if self.target.stat().st_dev != parent.stat().st_dev or self.target == parent:
            raise MscvtError(
                f"{self.target}: is a mount point, so nothing can be renamed to it",
                hint="Give a folder inside of it with --save-dir.",
            )

    def _check_free(self, overwrite: bool) -> list[str]:
        """Refuse a target that holds something, unless it is all what this conversion writes and may be replaced.

        Returns:
            What it holds.
        """
        found = sorted(path.name for path in self.target.iterdir()) if self.target.exists() else []
        if not found:
            return []
        if not overwrite:
            raise MscvtError(
                f"{self.target}: exists and is not empty ({', '.join(found[:5])})",
                hint="Choose another --save-dir, or replace it with --overwrite.",
            )
        if strange := foreign(self.target, self._replaceable(self.target)):
            raise MscvtError(
                f"{self.target}: is no checkpoint that this conversion could have written, so --overwrite won't "
                f"replace it (it holds {', '.join(strange)})",
                hint="Choose another --save-dir, or move these away first.",
            )
        return [entry.path for entry in entries(self.target)]

    def _join(self) -> bool:
        """Become one of the runs; returns whether there is no other one.

        Raises:
            MscvtError: Where the only other one doesn't let anybody in.
        """
        path = self.root / "lock"
        self._lock = open_lock(path)
        if self._lock is not None:
            return True
        self._lock = open_lock(path, shared=True)
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
        hidden = self._hidden
        hidden.restore()
        there = hidden.recorded()
        if there == self._identity and hidden.is_committed():
            self.is_committed = True
            return
        self._check_free(overwrite)
        is_unfinished = there is not None and not hidden.is_bare()
        if resume and not is_unfinished:
            raise MscvtError(
                f"{self.target}: there is no unfinished conversion to resume", hint="Leave out --resume to begin one."
            )
        if there == self._identity and self.data.exists():
            return
        if is_unfinished and not overwrite:
            found = differences(there, self._identity)
            raise MscvtError(
                f"{self.target}: an unfinished conversion is there and differs from this one in "
                f"{', '.join(sorted({line.split(',')[0].split(':')[0] for line in found}))}",
                faults=found[:_SHOWN],
                hint="Repeat the command that began it, or discard its work with --overwrite or `mscvt discard`.",
            )
        if not is_alone:
            raise self._taken()
        hidden.begin(self._identity, self._planned)

    def _lock_files(self, files: Iterable[str], again: bool) -> None:
        """Make sure that no other run writes the same files."""
        for file in files:
            if not again and self.is_whole(file):
                continue
            record = open_record(self._hidden.part(file))
            if record is None:
                raise MscvtError(
                    f"{self.target}: another run is writing some of the same files, {file}",
                    hint="Wait for it, or give each run its own part with --only.",
                )
            self.records[file] = record
            if not again and self.is_whole(file):  # it has become whole since the first look
                self.records.pop(file).close()
        sync(self._hidden.parts)

    def is_whole(self, file: str) -> bool:
        """Whether a file is finished, and still there."""
        size = whole_size(self._hidden.part(file))
        return size is not None and size_of(self.data / file) == size

    def missing(self, files: Iterable[str]) -> list[str]:
        """Those of the files that are not whole."""
        return [file for file in files if not self.is_whole(file)]

    def discard(self, files: Iterable[str]) -> None:
        """Remove files of this run and all work on them, so that the same command makes them anew."""
        for file in files:
            self.records[file].clear()
            (self.data / file).unlink(missing_ok=True)

    def sync_names(self, files: Iterable[str]) -> None:
        """Make sure that files can't lose their names by a power failure."""
        for folder in sorted({parent for file in files for parent in (self.data / file).parents}):
            if folder.is_relative_to(self.target.parent):
                sync(folder)

    def mark_whole(self, files: Sequence[str]) -> None:
        """Note that files of this run are finished; their bytes must be on the disk."""
        for file in files:
            size = size_of(self.data / file)
            if size is None:
                raise MscvtError(f"{self.data / file}: has been removed", hint="Repeat the command.")
            self.records[file].finish(size)
        for file in files:
            self.records[file].sync()

    def complete(self, files: Collection[str], finish: Callable[[Path], None], overwrite: bool) -> bool:
        """Give the output its final name, if all files are whole and nobody is at work on any of them.

        Args:
            files: All files of the output; who wrote them has synced them.
            finish: Writes what makes the output complete into its folder.
            overwrite: Whether a result that is there may be replaced; it goes away only after the rename.

        Returns:
            False where files are missing; the run that finishes the last of them completes the output.
        """
        with gate(self.root) as entered:
            if not entered:
                raise self._taken()
            if self.missing(files) or not try_lock(self._held(), self.root):
                self._leave()
                return False
            finish(self.data)
            self._sync_rest(files)
            self._hidden.commit(self._check_free(overwrite))
        self._hidden.remove_replaced()  # a large checkpoint takes its time, and nobody shall wait at the gate for it
        self.close()
        return True

    def _sync_rest(self, files: Collection[str]) -> None:
        for folder, _, names in os.walk(self.data):
            for name in names:
                path = Path(folder, name)
                if path.relative_to(self.data).as_posix() not in files:
                    sync(path)
            sync(Path(folder))

    @property
    def is_bare(self) -> bool:
        """Whether there is nothing yet that is worth keeping."""
        return self._hidden.is_bare()

    def close(self) -> None:
        """Let go of all locks; the work that is done stays, and where there is none, nothing does."""
        if self._lock is None:
            return
        with gate(self.root) as entered:
            if entered:
                self._leave()
        self._release()

    def _leave(self) -> None:
        """Stop being one of the runs; inside the gate, so that the last one who comes to complete finds nobody."""
        if self._lock is not None and self._hidden.is_bare() and try_lock(self._lock, self.root):
            self._hidden.remove()
        self._release()

    def _release(self) -> None:
        while self.records:
            self.records.popitem()[1].close()
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None


_SHOWN = 20
"""Values that are named where two conversions differ."""
