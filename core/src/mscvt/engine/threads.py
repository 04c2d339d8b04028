"""torch's number of threads, which is one for the process, while runs have threads of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class _Kept:
    """What torch's number of threads was before the first of the runs that are at work.

    What a thread sets is its own from then on, and what threads that begin later start with. So a caller that begins
    while others are at work would find their workers' number, take it for the process's, and leave it behind.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.runs = 0
        self.number = 0


_KEPT = _Kept()
"""As global as what it keeps."""


@contextmanager
def keep_thread_number() -> Iterator[None]:
    """Let workers set their own number of threads, and have torch's as it was for everybody else afterwards."""
    with _KEPT.lock:
        if _KEPT.runs == 0:
            _KEPT.number = torch.get_num_threads()
        _KEPT.runs += 1
    try:
        yield
    finally:
        with _KEPT.lock:
            _KEPT.runs -= 1
            torch.set_num_threads(_KEPT.number)
