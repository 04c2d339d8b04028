"""What every hub can be asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from mscvt.formats.sums import Sum
from mscvt.records import dataclass


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository, as the hub states it."""

    path: str
    """Below the repository's root, as the hub writes it; it is not to be believed before it was checked."""
    nbytes: int
    sum: Sum | None
    """What its bytes must add up to; None where the hub doesn't say."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one revision."""

    revision: str
    """The commit, where the hub tells it, so that files fetched later are of the same one."""
    files: tuple[HubFile, ...]


class BrokenTransferError(Exception):
    """A transfer ended before all bytes were there; it can go on from where it was."""


class Hub(Protocol):
    """A hub. Its methods raise `MscvtError` for what repeating won't mend."""

    def listing(self, repository: str, revision: str | None) -> Listing:
        """What a repository holds at a revision, by default that of its main branch."""
        ...

    def open_at(
        self, repository: str, revision: str, path: str, start: int, end: int
    ) -> AbstractContextManager[tuple[int, Iterator[bytes]]]:
        """Ask for the bytes of a file from `start` up to `end`.

        Returns:
            Where the bytes that come really start, which is 0 where the server knows no ranges, and the bytes. Both
            opening and reading them raises `BrokenTransferError`.
        """
        ...


def start_of(status: int, headers: Mapping[str, str]) -> int:
    """Where the bytes of an answer start: 0, unless it is a part that says otherwise.

    Raises:
        BrokenTransferError: Where a part doesn't say which.
    """
    if status != 206:
        return 0
    unit, _, span = headers.get("Content-Range", "").partition(" ")
    start = span.partition("-")[0]
    if unit != "bytes" or not start.isdecimal():
        raise BrokenTransferError("the server sends a part, and doesn't say which")
    return int(start)
