"""What other runs do with an output, as who is none of them sees it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from mscvt.output.hidden import HiddenFolder
from mscvt.output.locks import open_lock
from mscvt.output.record import parse
from mscvt.output.tree import size_of

_TURN = 0.2
"""Seconds between two looks at a lock."""


def is_begun(target: Path) -> bool:
    """Whether there is unfinished work for a target."""
    return HiddenFolder(target).recorded() is not None


def noted(target: Path, file: str) -> Mapping[int, int | None]:
    """The finished tensors of a file: number in the file -> CRC-32 or None."""
    hidden = HiddenFolder(target)
    if size_of(hidden.data / file) is None:
        return {}
    try:
        return parse(hidden.part(file).read_bytes()).tensors
    except FileNotFoundError:
        return {}


def wait_for(target: Path, files: Iterable[str], seconds: float) -> None:
    """Wait until no other run writes any of these files, or for so many seconds in all."""
    hidden = HiddenFolder(target)
    deadline = time.monotonic() + seconds
    for file in files:
        path = hidden.part(file)
        while path.exists() and not _is_free(path) and time.monotonic() < deadline:
            time.sleep(_TURN)


def _is_free(path: Path) -> bool:
    descriptor = open_lock(path)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is not None
