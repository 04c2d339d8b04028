"""The output files of a run: allocated with their final layout, or found as an earlier run left them, and open."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mscvt.errors import MscvtError
from mscvt.output.disk import reserve, sync
from mscvt.output.staging import Staging
from mscvt.output.tree import make_folders
from mscvt.plan.contents import Name, OutputFile

Allocate = Callable[[Path, OutputFile], Mapping[Name, int]]
"""Makes a file with room for its tensors; returns their offsets in bytes."""


def allocate_files(
    staging: Staging, files: Sequence[OutputFile], allocate: Allocate, offsets_in: Allocate
) -> list[Mapping[Name, int]]:
    """Make the files that are missing or damaged, and forget the work on those.

    Args:
        staging: The hidden folder, with the records of these files.
        files: The files.
        allocate: Makes a file.
        offsets_in: The same offsets, of a file that was made before.

    Returns:
        The offsets of each file's tensors, in bytes.
    """
    offsets = [_read_offsets(staging.data / file.path, file, offsets_in) for file in files]
    lost = [number for number, found in enumerate(offsets) if found is None]
    for number in lost:
        staging.records[files[number].path].clear()
    for number in lost:
        offsets[number] = _allocate(make_folders(staging.data, files[number].path), files[number], allocate)
    staging.sync_names([files[number].path for number in lost])
    return [found for found in offsets if found is not None]


def _read_offsets(path: Path, file: OutputFile, offsets_in: Allocate) -> Mapping[Name, int] | None:
    """The offsets of a file that was allocated before; None where it is not there or not what it was."""
    if path.is_symlink() or not path.is_file():
        return None
    try:
        offsets = offsets_in(path, file)
    except (MscvtError, KeyError):
        return None
    return offsets if offsets.keys() == file.tensors.keys() else None


def _allocate(path: Path, file: OutputFile, allocate: Allocate) -> Mapping[Name, int]:
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    try:
        offsets = allocate(temporary, file)
        reserve(temporary)
        sync(temporary)
    except OSError as error:
        temporary.unlink(missing_ok=True)  # it may hold the space that is needed
        error.filename = error.filename or str(path)
        raise
    temporary.replace(path)
    return offsets


class OpenFiles:
    """Files that are open for writing."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.descriptors: list[int] = []
        try:
            for path in paths:
                self.descriptors.append(os.open(path, os.O_RDWR | os.O_NOFOLLOW))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close all of them."""
        while self.descriptors:
            os.close(self.descriptors.pop())
