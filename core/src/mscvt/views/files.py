"""Files that are alike, as one line: 512 ranks are as many lines as they have stages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mscvt.errors.folding import fold_counted
from mscvt.records import dataclass

_FOLDED = 2


class SizedFile(NamedTuple):
    """A file, and what it holds."""

    path: str
    """Below the folder."""
    nbytes: int
    tensors: int
    stage: int | None
    """Whose rank's it is; None for what is no rank's."""


@dataclass(frozen=True, slots=True)
class FileGroup:
    """Files that differ in nothing but numbers."""

    paths: str
    """Folded, below the folder."""
    count: int
    tensors: tuple[int, int]
    """The fewest and the most tensors that one of them has."""
    nbytes: tuple[int, int]
    """The smallest and the largest, in bytes."""
    total: int
    """Bytes of all of them."""


def group_files(files: Iterable[SizedFile]) -> tuple[FileGroup, ...]:
    """Ranks of a stage that are equally large go together, and all files that are no ranks."""
    alike: dict[tuple[int, ...], list[SizedFile]] = {}
    for file in files:
        mark = () if file.stage is None else (file.stage, file.nbytes, file.tensors)
        alike.setdefault(mark, []).append(file)
    groups = []
    for members in alike.values():
        lines = fold_counted((file.path for file in members), _FOLDED)
        sizes = [file.nbytes for file in members]
        tensors = [file.tensors for file in members]
        groups.append(
            FileGroup(
                " ".join(line for line, _ in lines),
                len(members),
                (min(tensors), max(tensors)),
                (min(sizes), max(sizes)),
                sum(sizes),
            )
        )
    return tuple(groups)
