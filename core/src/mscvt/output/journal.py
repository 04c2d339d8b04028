"""Noting tensors in the records of their files, each only after its bytes have reached the disk."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence

from mscvt.output.record import Record

Finished = tuple[int, int, int | None]
"""A tensor that is written: number of its file, its number in the file, its CRC-32 or None."""


class Journal:
    """Collects finished tensors from many threads and notes them now and then."""

    def __init__(self, records: Sequence[Record], descriptors: Sequence[int], seconds: float) -> None:
        """Note in these records, of which each belongs to the open output file of the same number.

        Args:
            records: The files' records.
            descriptors: The files themselves, which are synced before anything is noted.
            seconds: How long to collect; what is not noted is done again after a crash.
        """
        self._records, self._descriptors, self._seconds = records, descriptors, seconds
        self._finished: list[Finished] = []
        self._noted = time.monotonic()
        self._collecting, self._writing = threading.Lock(), threading.Lock()
        self._is_over = False

    def add(self, finished: Iterable[Finished]) -> None:
        """Take finished tensors; of all threads at most one waits for the disk."""
        with self._collecting:
            self._finished += finished
            is_due = time.monotonic() - self._noted >= self._seconds
            if is_due:
                self._noted = time.monotonic()
        if is_due:
            self.flush()

    def flush(self, *, is_last: bool = False) -> None:
        """Note all tensors that were taken before.

        Args:
            is_last: Whether the files are about to be noted as whole, which syncs their records.

        Raises:
            OSError: Where the disk is full or broken. Nothing is noted from then on: the system reports only
                once that bytes were lost, and the next sync would seem to succeed.
        """
        with self._writing:
            with self._collecting:
                finished, self._finished = self._finished, []
            by_file: dict[int, dict[int, int | None]] = {}
            for file, tensor, checksum in finished:
                by_file.setdefault(file, {})[tensor] = checksum
            try:
                for file in by_file:
                    if not self._is_over:
                        os.fsync(self._descriptors[file])
                if self._is_over:
                    return
                for file, tensors in by_file.items():
                    self._records[file].add(tensors)
                if not is_last:
                    for file in by_file:  # the first one takes the others along, where the file system has a log
                        self._records[file].sync()
            except OSError:
                self._is_over = True
                raise

    def stop(self) -> None:
        """Note nothing more, even where a thread is waiting for the disk at this moment."""
        self._is_over = True
