"""Files that are alike, as one line: 512 ranks are as many lines as they have stages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mscvt.errors.folding import fold_counted
from mscvt.plan.contents import OutputFile

_FOLDED = 2


@dataclass(frozen=True, slots=True)
class FileGroup:
    """Files that differ in nothing but numbers."""

    paths: str
    """Folded, below the target."""
    count: int
    tensors: tuple[int, int]
    """The fewest and the most tensors that one of them has."""
    nbytes: tuple[int, int]
    """The smallest and the largest, in bytes of tensors."""
    total: int
    """Bytes of all of them."""


def group_files(files: Iterable[OutputFile]) -> tuple[FileGroup, ...]:
    """Ranks of a stage that are equally large go together, and all files that are no ranks."""
    alike: dict[tuple[int, ...], list[OutputFile]] = {}
    for file in files:
        mark = (file.labels["pp"], file.nbytes, len(file.tensors)) if "pp" in file.labels else ()
        alike.setdefault(mark, []).append(file)
    groups = []
    for members in alike.values():
        by_path = {file.path: file for file in members}
        lines = fold_counted(by_path, _FOLDED)
        sizes = [file.nbytes for file in members]
        tensors = [len(file.tensors) for file in members]
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
