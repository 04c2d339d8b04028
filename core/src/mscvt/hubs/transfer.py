"""Fetching one file over connections that break: from where it stopped, in this run and in the next."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from mscvt.errors import MscvtError, shown
from mscvt.formats.sums import sum_of
from mscvt.hubs.hub import BrokenTransferError, Hub, HubFile

PART = ".part"
"""Follows the name of a file that has not arrived whole."""
WAITS = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before each attempt that follows one in which not a byte arrived."""
_LONGEST = 16 << 30
"""Bytes of one request. Delivery networks refuse to send more than some 50 GB at once; huggingface_hub's
`MAX_HTTP_DOWNLOAD_SIZE` is 50 GB."""


def fetch(hub: Hub, repository: str, revision: str, file: HubFile, target: Path, moved: Callable[[int], None]) -> None:
    """Fetch a file and see that it is what the hub states, going on with what an earlier run left.

    Args:
        hub: Where it is.
        repository: Its repository.
        revision: Of the repository.
        file: The file.
        target: Where it is put when all of its bytes are there; until then they are in `target.part`.
        moved: Called with the bytes that have arrived, those of earlier runs first; with less than 0 where they have
            to be fetched again.

    Raises:
        MscvtError: Where the hub refuses it, the connection keeps breaking, in which case what has arrived is kept, or
            wrong bytes arrive twice.
    """
    for is_last in (False, True):
        if target.is_file() and target.stat().st_size == file.nbytes:
            moved(file.nbytes)
        else:
            _transfer(hub, repository, revision, file, target, moved)
        if file.sum is None or (found := sum_of(target, file.sum.algorithm)) == file.sum:
            return
        target.unlink()
        if is_last:
            raise MscvtError(
                f"{file.path}: wrong bytes arrived twice, their {found.algorithm} is {found.value}, the hub states "
                f"{file.sum.value}",
                hint="Is a proxy or a mirror in between that changes files? Where the model has changed since the "
                "download began, give it up with `mscvt discard` and begin anew.",
            )
        moved(-file.nbytes)


def _transfer(
    hub: Hub, repository: str, revision: str, file: HubFile, target: Path, moved: Callable[[int], None]
) -> None:
    """Fetch a file until all of its bytes are there.

    Raises:
        MscvtError: Where the hub refuses it, or the connection keeps breaking.
    """
    part = target.with_name(target.name + PART)
    part.parent.mkdir(parents=True, exist_ok=True)
    if part.exists() and part.stat().st_size > file.nbytes:
        part.unlink()
    part.touch()
    done = part.stat().st_size
    moved(done)
    failures = 0
    while done < file.nbytes:
        before = done
        try:
            done = _append(hub, repository, revision, file, part, done, moved)
            reason = "the server sent nothing"
        except BrokenTransferError as error:
            reason = str(error)
            done = part.stat().st_size
        failures = 0 if done > before else failures + 1
        if failures > len(WAITS):
            raise MscvtError(
                f"{file.path}: the transfer broke {failures} times at byte {done:,} of {file.nbytes:,}: "
                f"{shown(reason)}",
                hint="What has arrived is kept: the same command goes on from there.",
            )
        if failures:
            time.sleep(WAITS[failures - 1])
    part.replace(target)


def _append(
    hub: Hub, repository: str, revision: str, file: HubFile, part: Path, done: int, moved: Callable[[int], None]
) -> int:
    """Ask once for what is missing, and write what comes; returns how many bytes are there now."""
    end = min(file.nbytes, done + _LONGEST)
    with (
        hub.open_at(repository, revision, file.path, done, end) as (start, chunks),
        part.open("r+b", buffering=0) as writing,
    ):
        if start != done:  # the server sends it all from the beginning
            moved(start - done)
        writing.seek(start)
        writing.truncate()
        done = start
        for chunk in chunks:
            if done + len(chunk) > file.nbytes:
                raise MscvtError(
                    f"{file.path}: the server sends more than the {file.nbytes:,} bytes that the hub states",
                    hint="Is a proxy or a mirror in between that answers for the hub?",
                )
            rest = memoryview(chunk)
            while rest:  # unbuffered, so that a process that is killed leaves all of it
                rest = rest[writing.write(rest) :]
            done += len(chunk)
            moved(len(chunk))
    return done
