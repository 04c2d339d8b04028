"""What is unfinished: how far it is, what it lacks, and giving it up."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mscvt.errors import MscvtError
from mscvt.errors.nearest import did_you_mean
from mscvt.output.download import DownloadFolder, Origin, UnfinishedDownload, look_at_download, read_origin
from mscvt.output.unfinished import UnfinishedConversion, discard_conversion, look_at_conversion
from mscvt.records import dataclass

_HIDDEN = re.compile(r"\.(.+)\.mscvt")


@dataclass(frozen=True, slots=True)
class Status:
    """What is unfinished for a target."""

    target: Path
    conversion: UnfinishedConversion | None
    download: UnfinishedDownload | None
    finished: Origin | None
    """The download that the target holds, where that is finished."""


def status_of(target: Path) -> Status:
    """Look for unfinished work.

    Args:
        target: What `--save-dir` or `--to` was.

    Raises:
        MscvtError: Where nothing is there at all, or what is there is not ours.
    """
    conversion, download = look_at_conversion(target), look_at_download(target)
    if conversion is None and not target.exists():
        raise MscvtError(
            f"{target}: is not there, and nothing of it is unfinished", hint=_nearest(Path(os.path.realpath(target)))
        )
    finished = read_origin(target) if target.is_dir() and download is None else None
    return Status(target, conversion, download, finished)


def discard(target: Path) -> Status:
    """Remove what is unfinished: exactly what runs of ours have written.

    Returns:
        What was there.

    Raises:
        MscvtError: Where nothing is unfinished, a run is at work, or there is something that is not ours; nothing is
            removed then.
    """
    status = status_of(target)
    if status.conversion is None and status.download is None:
        raise MscvtError(f"{target}: nothing is unfinished there", hint=_nearest(Path(os.path.realpath(target))))
    if status.download is not None:
        folder = DownloadFolder(target)
        folder.open()
        try:
            folder.discard()
        finally:
            folder.close()
    if status.conversion is not None:
        discard_conversion(target)
    return status


def _nearest(target: Path) -> str | None:
    """Which target beside it has nearly the same name."""
    if not target.parent.is_dir():
        return None
    names = sorted(path.name for path in target.parent.iterdir())
    begun = [match[1] for match in map(_HIDDEN.fullmatch, names) if match]
    there = [*begun, *(name for name in names if not name.startswith("."))]
    return did_you_mean(target.name, [name for name in there if name != target.name])
