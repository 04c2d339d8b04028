"""The hidden folder in which an output grows: what lies in it, and whether it is one of ours.

    .TARGET.mscvt/gate               held for a moment by a run that begins or ends
    .TARGET.mscvt/lock               shared by all runs that are at work; alone in it, one may begin anew or complete
    .TARGET.mscvt/conversion.json    what is being converted; another conversion is refused
    .TARGET.mscvt/data/              the output itself, renamed to TARGET at the end
    .TARGET.mscvt/parts/FILE         an output file's record: its lock, its finished tensors, whether it is whole
    .TARGET.mscvt/commit.json        written before the last renames: the files of the output, and those they replace
    .TARGET.mscvt/replaced/          what TARGET was before, between the two renames of --overwrite

`conversion.json` is written before there is anything to lose and removed after it: a folder without one is not ours.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mscvt.errors import MscvtError
from mscvt.formats.files import is_below
from mscvt.output.disk import sync, write_whole
from mscvt.output.planned import PlannedFile, planned_files
from mscvt.output.tree import entries, remove_files, size_of

_MARK = "an unfinished conversion of mscvt"
_LOOSE = frozenset({"gate", "lock", "conversion.json.new", "commit.json", "commit.json.new"})
"""What a run that was killed in its first or last moment leaves without a record."""


class HiddenFolder:
    """The folder beside a target. It is changed by who is inside its gate, but for `data` and `parts`."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.root = target.parent / f".{target.name}.mscvt"
        self.data = self.root / "data"
        self.parts = self.root / "parts"
        self.replaced = self.root / "replaced"
        self._record = self.root / "conversion.json"
        self._commit = self.root / "commit.json"

    def part(self, file: str) -> Path:
        """The record of an output file."""
        return self.parts / quote(file, safe="")

    def check(self) -> None:
        """See that the folder is one of ours, with nothing in it that leads elsewhere.

        Raises:
            MscvtError: Where it is anything else. It is left as it is.
        """
        self._check_kind()
        for entry in entries(self.root):
            if entry.kind == "other":
                raise self._foreign(f"{entry.path} is neither a file nor a folder")
        if not self._record.exists():
            if rest := sorted(path.name for path in self.root.iterdir() if path.name not in _LOOSE):
                raise self._foreign(f"it has no conversion.json, and holds {', '.join(rest[:5])}")
            return
        self.recorded()

    def make(self) -> None:
        """Make the folder, where it is not there yet.

        Raises:
            MscvtError: Where nothing can be made beside the target, or what is there is no folder.
        """
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self.root.mkdir()
        except OSError as error:
            raise MscvtError(
                f"{error.filename or self.root}: can't be made: {error.strerror}",
                hint="The output grows beside its final place, so the folder that holds --save-dir must be writable. "
                "Give a folder inside of one that is.",
            ) from None
        self._check_kind()

    def _check_kind(self) -> None:
        """See that it is a folder; it may be missing, where another run has just removed it.

        Raises:
            MscvtError: Where it is anything else.
        """
        with suppress(FileNotFoundError):
            mode = self.root.lstat().st_mode
            if not stat.S_ISDIR(mode):
                raise self._foreign("it is a link" if stat.S_ISLNK(mode) else "it is no folder")

    def recorded(self) -> dict[str, Any] | None:
        """The identity of the conversion that is there; None where there is none, or it was being removed.

        Raises:
            MscvtError: Where the record is not one of ours.
        """
        identity = self._read_record().get("identity")
        return identity if isinstance(identity, dict) else None

    def planned(self) -> tuple[PlannedFile, ...]:
        """The files that the conversion is to write.

        Raises:
            MscvtError: Where the record is not one of ours.
        """
        files = planned_files(self._read_record().get("files", []))
        if files is None:
            raise self._foreign("its conversion.json is damaged")
        return files

    def finishing(self) -> tuple[str, ...]:
        """The files beside those, which are written last of all."""
        names = self._read_record().get("finishing")
        return tuple(map(str, names)) if isinstance(names, list) else ()

    def _read_record(self) -> dict[str, Any]:
        """The record; empty where there is none."""
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or record.get("what") != _MARK:
            raise self._foreign("its conversion.json is damaged, or another program's")
        return record

    def _foreign(self, why: str) -> MscvtError:
        return MscvtError(
            f"{self.root}: is not the folder of an unfinished conversion, so nothing in it is touched: {why}",
            hint="Move it away, or choose another --save-dir.",
        )

    def begin(self, identity: Mapping[str, Any], planned: Mapping[str, Any]) -> None:
        """Make it the folder of this conversion; whatever was in it is gone."""
        self._write_record({"identity": None})  # from here on there is nothing worth keeping, and that is known
        self._remove_work()
        self._commit.unlink(missing_ok=True)
        self.data.mkdir()
        self.parts.mkdir()
        self._write_record({**planned, "identity": identity})

    def _write_record(self, record: Mapping[str, Any]) -> None:
        write_whole(self._record, json.dumps({"what": _MARK, **record}, indent=1, sort_keys=True))

    def is_bare(self) -> bool:
        """Whether there is nothing worth keeping."""
        if self.replaced.exists() and not self.target.exists():
            return False
        return self.recorded() is None or not any(entry.kind == "file" for entry in entries(self.data))

    def restore(self) -> None:
        """Undo the first of the two renames of a run that ended between them.

        Raises:
            MscvtError: Where somebody removed the new output since.
        """
        if not self.replaced.exists() or self.target.exists():
            return
        if not self.data.exists():
            raise MscvtError(
                f"{self.target}: does not exist any more; what it was before is in {self.replaced}",
                hint="Rename that folder to its old place, or remove it.",
            )
        self.replaced.rename(self.target)

    def commit(self, replaced: Sequence[str]) -> None:
        """Give the output its final name, in place of these files; they are still there afterwards, in `replaced`."""
        output = {entry.path: size_of(self.data / entry.path) for entry in entries(self.data)}
        write_whole(self._commit, json.dumps({"output": output, "replaced": list(replaced)}))
        if replaced:
            self.target.rename(self.replaced)
        self.data.rename(self.target)
        sync(self.target.parent)

    def is_committed(self) -> bool:
        """Whether a run ended after the last rename, and all that it wrote is still there."""
        output, _ = self._committing()
        if self.data.exists() or not output:
            return False
        return all(size_of(self.target / path) == size for path, size in output.items())

    def _committing(self) -> tuple[Mapping[str, int], Sequence[str]]:
        """The files of the output with their sizes, and those that they replace; none where nobody says."""
        try:
            said = json.loads(self._commit.read_text(encoding="utf-8"))
            output, replaced = dict(said["output"]), list(said["replaced"])
        except FileNotFoundError:
            return {}, ()
        except (ValueError, RecursionError, LookupError, TypeError):
            raise self._foreign("its commit.json is damaged") from None
        if not all(map(is_below, (*output, *replaced))):
            raise self._foreign("its commit.json names what is not below the output")
        return output, replaced

    def remove_replaced(self) -> None:
        """Remove what was replaced, file by file; what somebody has put there since stays."""
        if self.target.exists() and self.replaced.exists():
            remove_files(self.replaced, self._committing()[1])

    def _remove_work(self) -> None:
        self.remove_replaced()
        for folder in (self.data, self.parts):
            if folder.exists():
                shutil.rmtree(folder)

    def remove(self) -> None:
        """Remove the folder, the record last of what tells where an interrupted run was."""
        self._remove_work()
        for name in ("conversion.json.new", "conversion.json", "commit.json.new", "commit.json", "lock", "gate"):
            (self.root / name).unlink(missing_ok=True)
        try:
            os.rmdir(self.root)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):  # another run has just come; the folder is its now
                raise
