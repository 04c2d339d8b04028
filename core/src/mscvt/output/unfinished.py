"""Looking at the unfinished work for a target, and giving it up."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mscvt.errors import MscvtError, shown
from mscvt.output.hidden import HiddenFolder
from mscvt.output.locks import gate, is_locked, open_lock
from mscvt.output.planned import PlannedFile
from mscvt.output.record import parse
from mscvt.output.tree import entries, size_of
from mscvt.records import dataclass

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a file is."""

    file: PlannedFile
    tensors: int
    """Those whose bytes are on the disk."""
    is_whole: bool


@dataclass(frozen=True, slots=True)
class UnfinishedConversion:
    """What the hidden folder of a target holds."""

    target: Path
    root: Path
    """The hidden folder."""
    identity: Mapping[str, Any]
    """What is being converted; empty where a run was ended in its first or last moment."""
    files: tuple[Progress, ...]
    is_running: bool
    """Whether a run is at work on it."""
    is_committed: bool
    """Whether the result has its name, and only this is left to be removed."""
    nbytes: int
    """Bytes that it takes on the disk."""


def look_at_conversion(target: Path) -> UnfinishedConversion | None:
    """The unfinished conversion into a target; None where there is none.

    Raises:
        MscvtError: Where the hidden folder is not one of ours.
    """
    hidden = HiddenFolder(Path(os.path.realpath(target)))
    if not os.path.lexists(hidden.root):
        return None
    hidden.check()
    with ExitStack() as inside:
        with suppress(OSError):  # another user's folder can be looked at all the same
            inside.enter_context(gate(hidden.root))  # or this look would be in the way of a run that begins
        is_running = is_locked(hidden.root / "lock")
        files = tuple(_progress(hidden, file) for file in hidden.planned())
        taken = [path.stat().st_blocks * 512 for path in hidden.root.rglob("*") if path.is_file()]
        identity = hidden.recorded() or {}
        is_committed = hidden.is_committed()
    return UnfinishedConversion(target, hidden.root, identity, files, is_running, is_committed, sum(taken))


def _progress(hidden: HiddenFolder, file: PlannedFile) -> Progress:
    try:
        noted = parse(hidden.part(file.path).read_bytes())
    except FileNotFoundError:
        return Progress(file, 0, is_whole=False)
    folder = hidden.target if hidden.is_committed() else hidden.data
    is_whole = noted.size is not None and size_of(folder / file.path) == noted.size
    return Progress(file, file.tensors if is_whole else len(noted.tensors), is_whole)


def discard_conversion(target: Path) -> None:
    """Remove the unfinished work for a target; what the target itself holds stays.

    Raises:
        MscvtError: Where a run is at work on it, or the folder holds what no conversion wrote; nothing is removed then.
    """
    hidden = HiddenFolder(Path(os.path.realpath(target)))
    hidden.check()
    with gate(hidden.root) as entered:
        lock = open_lock(hidden.root / "lock") if entered else None
        if lock is None:
            raise MscvtError(f"{target}: another run is writing to it", hint="Wait for it, or stop it first.")
        try:
            hidden.restore()
            if hidden.recorded() is not None and (strange := _strange(hidden)):
                raise MscvtError(
                    f"{hidden.root}: holds what no conversion wrote, so nothing is removed: "
                    f"{', '.join(map(shown, strange))}",
                    hint="Move these away first.",
                )
            hidden.remove()
        finally:
            os.close(lock)


def _strange(hidden: HiddenFolder) -> list[str]:
    """The first few paths in the output and in the records that a conversion doesn't give."""
    files = [file.path for file in hidden.planned()]
    written = {*files, *hidden.finishing()}
    known = {f"data/{path}{ending}" for path in written for ending in ("", ".new")}
    known |= {f"parts/{quote(path, safe='')}" for path in files}
    found = [entry for entry in entries(hidden.root) if entry.path.startswith(("data/", "parts/"))]
    return [entry.path for entry in found if entry.kind == "file" and entry.path not in known][:_SHOWN]
