"""torch, for what is computed: it takes one to three seconds to load, so that nobody does before it is needed."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from mscvt.tensors.bits import Bits
from mscvt.tensors.info import TORCH_NAMES

if TYPE_CHECKING:
    import torch

    from mscvt.tensors.sources import SourceTensor


class _Process:
    """What is done once in a process, and what has to be undone: as global as torch's number of threads.

    What a thread sets is its own from then on, and what threads that begin later start with. So the number is taken
    down before the first of all workers sets it, and set again when the last run has ended.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_loaded = False
        self.seconds = 0.0
        self.runs = 0
        self.number = 0
        """What the number of threads was; 0 where no worker has set it."""


class _Thread(threading.local):
    is_to_compute_alone = False


_PROCESS = _Process()
_THREAD = _Thread()


@contextmanager
def workers_at_work() -> Iterator[None]:
    """Have torch's number of threads afterwards as it was before, for everybody, whatever workers do."""
    with _PROCESS.lock:
        _PROCESS.runs += 1
    try:
        yield
    finally:
        with _PROCESS.lock:
            _PROCESS.runs -= 1
            if _PROCESS.number:
                import torch

                torch.set_num_threads(_PROCESS.number)
                _PROCESS.number = _PROCESS.number if _PROCESS.runs else 0


def compute_alone() -> None:
    """Say that this thread is one of many workers: torch's own threads would only get in their way."""
    _THREAD.is_to_compute_alone = True


def load_torch() -> None:
    """Have torch ready for this thread."""
    if _PROCESS.is_loaded and not _THREAD.is_to_compute_alone:
        return
    began = time.monotonic()
    import torch

    with _PROCESS.lock:  # not before: whoever is interrupted meanwhile needs it to end
        if not _PROCESS.is_loaded:
            _quiet()
            _PROCESS.is_loaded = True
            _PROCESS.seconds += time.monotonic() - began
        if _THREAD.is_to_compute_alone:
            _PROCESS.number = _PROCESS.number or torch.get_num_threads()
            torch.set_num_threads(1)
            _THREAD.is_to_compute_alone = False


def loading_seconds() -> float:
    """How long this process has waited for torch; whoever counts a conversion's speed leaves that out."""
    return _PROCESS.seconds


def _quiet() -> None:
    """Have torch say now, and to nobody, what it says once of arrays that can't be written."""
    import torch

    array = np.zeros(1, np.uint8)
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.from_numpy(array)


def as_torch(bits: Bits, dtype: str) -> torch.Tensor:
    """The elements of a dtype, by safetensors' name, whose bits these are; both share their memory."""
    load_torch()
    import torch

    return torch.from_numpy(bits).view(getattr(torch, TORCH_NAMES[dtype]))


def as_bits(tensor: torch.Tensor) -> Bits:
    """The bits of a tensor; both share their memory."""
    import torch

    bits: Bits = tensor.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.itemsize]).numpy()
    return bits


def values_of(tensor: SourceTensor, offset: int, extents: tuple[int, ...], strides: tuple[int, ...]) -> torch.Tensor:
    """The elements at `offset + sum(index * stride)`, as a tensor of shape `extents`."""
    return as_torch(tensor.region(offset, extents, strides), tensor.dtype)


def cast(target: Bits, dtype: str, source: Bits, from_dtype: str) -> None:
    """Put elements into others of the same shape and another dtype, each rounded once to the nearest, ties to even."""
    as_torch(target, dtype).copy_(as_torch(source, from_dtype))
