"""What is let go of only when nobody uses it any more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack


class Holding:
    """Locks and open files of a run; they are closed when the last of its holders has let go.

    A run that is interrupted while a slow disk keeps one of its threads in a write ends at once. The thread goes on
    holding the files: a descriptor that were closed under it would soon be the number of another file, and a lock that
    were dropped would let another run write the same bytes.
    """

    def __init__(self) -> None:
        """Begin with one holder, the run itself."""
        self._closers = ExitStack()
        self._holders = 1
        self._lock = threading.Lock()

    def closing(self, close: Callable[[], None]) -> None:
        """Have something closed at the end, the last one first."""
        self._closers.callback(close)

    def hold(self) -> None:
        """Become one more holder."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """Let go; the last one closes everything."""
        with self._lock:
            self._holders -= 1
            is_last = self._holders == 0
        if is_last:
            self._closers.close()
