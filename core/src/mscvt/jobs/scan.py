"""Reading every value of a checkpoint, block by block: is any of them what no weight should be."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from mscvt.errors import printable
from mscvt.jobs.stopper import Stopper
from mscvt.plan.contents import shown
from mscvt.tensors.info import ITEM_SIZES, TensorInfo
from mscvt.tensors.sources import Source, SourceTensor
from mscvt.views.checkpoint import Finding, Scan

if TYPE_CHECKING:
    import torch

_BLOCK = 1 << 22
"""Elements looked at together; what is computed of them is as large."""


def scan(
    source: Source,
    *,
    workers: int | None = None,
    started: Callable[[str, int], None] = lambda what, nbytes: None,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> Scan:
    """Look for NaN, infinities, and tensors that are all zero.

    Args:
        source: The checkpoint; what several ranks hold is looked at on each of them.
        workers: Threads; None for one for each core.
        started: Called when reading begins, with the bytes to read.
        progress: Called with the bytes that were read, from any thread.

    Raises:
        MscvtError: Where a file is not what its headers say.
    """
    from mscvt.tensors.computing import compute_alone, workers_at_work

    began = time.monotonic()
    tensors: Mapping[Any, TensorInfo] = source.tensors
    nbytes = sum(info.nbytes for info in tensors.values())
    started("reading values", nbytes)
    stopper = Stopper(progress)
    ordered = sorted(tensors, key=lambda name: (tensors[name].file, tensors[name].offset))
    with workers_at_work():
        pool = ThreadPoolExecutor(
            workers or os.cpu_count() or 1, thread_name_prefix="mscvt-scan", initializer=compute_alone
        )
        try:
            found = list(pool.map(lambda name: _look_at(source, name, tensors[name], stopper.moved), ordered))
        finally:
            stopper.stop()
            pool.shutdown(wait=False, cancel_futures=True)
    return Scan(
        len(tensors), nbytes, time.monotonic() - began, tuple(finding for findings in found for finding in findings)
    )


def _look_at(source: Source, name: Any, info: TensorInfo, moved: Callable[[int], None]) -> list[Finding]:
    not_numbers = infinite = 0
    is_zero = info.numel > 0
    for block in _blocks(source.tensor(name), info):
        if block.is_floating_point():
            finite = int(block.isfinite().sum())
            if finite < block.numel():
                nans = int(block.isnan().sum())
                not_numbers += nans
                infinite += block.numel() - finite - nans
        is_zero = is_zero and not bool(block.any())
        moved(block.numel() * ITEM_SIZES[info.dtype])
    counts = {"NaN": not_numbers, "infinity": infinite, "zero": info.numel if is_zero else 0}
    return [Finding(what, printable(shown(name)), count) for what, count in counts.items() if count]


def _blocks(tensor: SourceTensor, info: TensorInfo) -> Iterator[torch.Tensor]:
    from mscvt.tensors.computing import values_of

    for start in range(0, info.numel, _BLOCK):
        block = values_of(tensor, start, (min(_BLOCK, info.numel - start),), (1,))
        is_small = block.is_floating_point() and block.element_size() == 1
        yield block.float() if is_small else block  # what can be computed differs among floats of a byte
