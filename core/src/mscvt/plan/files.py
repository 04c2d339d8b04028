"""Dividing what is written among files: one for each rank, or files of a bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod

from mscvt.parallel.grid import Grid, Rank
from mscvt.plan.contents import OutputFile
from mscvt.plan.planner import Tensors
from mscvt.tensors.info import ITEM_SIZES

SHARD_BYTES = 5_000_000_000
"""The largest file that transformers writes by default."""


def by_rank(tensors: Tensors, grid: Grid, path_of: Callable[[Rank], str]) -> Iterator[OutputFile]:
    """A file for each rank that exists, also those without tensors.

    Args:
        tensors: What is written, named by (rank, chunk, key).
        grid: All ranks.
        path_of: The path of a rank's file below the target folder.
    """
    found: dict[Rank, Tensors] = {rank: {} for rank in grid.ranks()}
    for name, what in tensors.items():
        found[name[0]][name] = what
    for rank, its in found.items():
        yield OutputFile(path_of(rank), its, {"tp": rank.tensor, "pp": rank.pipeline, "ep": rank.expert})


def by_size(tensors: Tensors, path_of: Callable[[int, int], str], limit: int = SHARD_BYTES) -> Iterator[OutputFile]:
    """Files of at most so many bytes of tensors; a larger tensor gets a file of its own.

    Args:
        tensors: What is written.
        path_of: The path of a file, for its number (from 1) and the number of all files.
        limit: Bytes.
    """
    groups: list[Tensors] = [{}]
    filled = 0
    for name, what in tensors.items():
        nbytes = prod(what[1]) * ITEM_SIZES[what[0]]
        if filled and filled + nbytes > limit:
            groups.append({})
            filled = 0
        groups[-1][name] = what
        filled += nbytes
    for number, its in enumerate(groups, 1):
        yield OutputFile(path_of(number, len(groups)), its, {"file": number})
