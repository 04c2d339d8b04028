"""Ending the threads of a job that has failed or was interrupted."""

from __future__ import annotations

from collections.abc import Callable


class Stopped(BaseException):
    """Ends a thread; no library takes it for an error that it could mend."""


class Stopper:
    """Passes on what threads count, until they are to end.

    Attributes:
        progress: Called with the bytes that a thread has moved.
    """

    def __init__(self, progress: Callable[[int], None]) -> None:
        self.progress = progress
        self._is_stopped = False

    def stop(self) -> None:
        """Let each thread end when it counts next."""
        self._is_stopped = True

    def moved(self, nbytes: int) -> None:
        """Count bytes.

        Raises:
            Stopped: Where the thread is to end.
        """
        if self._is_stopped:
            raise Stopped
        self.progress(nbytes)
