"""Dividing what is written among files: one for each rank, or files of a bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from mscvt.parallel.grid import Grid, Rank
from mscvt.plan.contents import Name, OutputFile
from mscvt.plan.planner import Entry, nbytes_of

SHARD_BYTES = 5_000_000_000
"""The largest file that transformers writes by default."""

Tensors = dict[Name, tuple[str, tuple[int, ...]]]


def by_rank(entries: Iterable[Entry], grid: Grid, path_of: Callable[[Rank], str]) -> Iterator[OutputFile]:
    """A file for each rank that exists, also those without tensors.

    Args:
        entries: What is written, named by (rank, chunk, key).
        grid: All ranks.
        path_of: The path of a rank's file below the target folder.
    """
    found: dict[Rank, Tensors] = {rank: {} for rank in grid.ranks()}
    for name, dtype, shape in entries:
        found[name[0]][name] = dtype, shape
    for rank, tensors in found.items():
        yield OutputFile(path_of(rank), tensors, {"tp": rank.tensor, "pp": rank.pipeline, "ep": rank.expert})


def by_size(
    entries: Iterable[Entry], path_of: Callable[[int, int], str], limit: int = SHARD_BYTES
) -> Iterator[OutputFile]:
    """Files of at most so many bytes of tensors; a larger tensor gets a file of its own.

    Args:
        entries: What is written.
        path_of: The path of a file, for its number (from 1) and the number of all files.
        limit: Bytes.
    """
    groups: list[Tensors] = [{}]
    filled = 0
    for entry in entries:
        nbytes = nbytes_of(entry)
        if filled and filled + nbytes > limit:
            groups.append({})
            filled = 0
        groups[-1][entry.name] = entry.dtype, entry.shape
        filled += nbytes
    for number, tensors in enumerate(groups, 1):
        yield OutputFile(path_of(number, len(groups)), tensors, {"file": number})
