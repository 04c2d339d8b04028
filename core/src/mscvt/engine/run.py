"""Running a plan: worker threads take blocks in order, fill a buffer of their own and hand it to the sink."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import torch

from mscvt.engine.blocks import Block, blocks_of, fill
from mscvt.engine.sinks import Sink
from mscvt.plan.contents import Content, Name, Plan
from mscvt.tensors.sources import SourceTensor

DEFAULT_MEMORY = 64 << 20
"""Bytes of all buffers together. Larger ones are not faster: a block should stay in the processor's cache."""
_LEAST_BUFFER = 1 << 16
_LAST_BLOCKS = 0.5
"""Seconds that an interrupted run waits for the blocks in work."""

Progress = Callable[[int], None]
"""Called with the bytes that have just been written."""


@dataclass(slots=True)
class _Pending:
    """How many blocks of a unit are not finished, and whether all have been handed out."""

    blocks: int = 0
    is_complete: bool = False


class _Queue:
    """Hands out blocks in order and reports the units whose last block is finished."""

    def __init__(
        self,
        plan: Plan,
        limit: int,
        done: Collection[int],
        wanted: Collection[Name] | None,
        finished: Callable[[int], None],
    ) -> None:
        self._lock = threading.Lock()
        self._pending: dict[int, _Pending] = {}
        self._reported: list[int] = []
        self._finished = finished
        self._blocks = self._generate(plan, limit, done, wanted)
        self.stopped = threading.Event()
        self.error: BaseException | None = None

    def _generate(
        self, plan: Plan, limit: int, done: Collection[int], wanted: Collection[Name] | None
    ) -> Iterator[tuple[int, Block]]:
        for unit in plan.units():
            if unit.number in done:
                continue
            contents = [c for c in unit.contents if wanted is None or any(t in wanted for t in c.targets)]
            if not contents:
                continue
            pending = self._pending[unit.number] = _Pending()
            for block in interleaved(contents, limit):
                pending.blocks += 1
                yield unit.number, block
            pending.is_complete = True
            self._report(unit.number)

    def take(self) -> tuple[int, Block] | None:
        with self._lock:
            taken = None if self.stopped.is_set() else next(self._blocks, None)
        self._announce()
        return taken

    def release(self, unit: int) -> None:
        with self._lock:
            self._pending[unit].blocks -= 1
            self._report(unit)
        self._announce()

    def _report(self, unit: int) -> None:
        pending = self._pending[unit]
        if pending.is_complete and pending.blocks == 0:
            del self._pending[unit]
            self._reported.append(unit)

    def _announce(self) -> None:
        """Report units outside of the lock: whoever notes them may wait for the disk, the others go on."""
        while True:
            with self._lock:
                if not self._reported:
                    return
                unit = self._reported.pop()
            self._finished(unit)

    def fail(self, error: BaseException) -> None:
        with self._lock:
            self.error = self.error or error
        self.stopped.set()


def interleaved(contents: list[Content], limit: int) -> list[Block]:
    """The blocks of contents that share sources, those that lie at the same place next to each other."""
    blocks = [
        (block.start / max(1, content.numel), number, block)
        for number, content in enumerate(contents)
        for block in blocks_of(content, limit)
    ]
    return [block for _, _, block in sorted(blocks, key=lambda entry: entry[:2])]


def run_plan(
    plan: Plan,
    open_source: Callable[[Name], SourceTensor],
    sink: Sink,
    *,
    workers: int | None = None,
    max_memory: int = DEFAULT_MEMORY,
    done: Collection[int] = (),
    wanted: Collection[Name] | None = None,
    finished: Callable[[int], None] = lambda unit: None,
    progress: Progress = lambda nbytes: None,
) -> None:
    """Run all units of a plan that are not done yet.

    Args:
        plan: The plan.
        open_source: Gives a source tensor by its name; called from many threads.
        sink: Takes the blocks.
        workers: Threads; by default one for each core.
        max_memory: Bytes for the buffers of all workers together.
        done: Numbers of units to pass over.
        wanted: The targets that are wanted; None for all of them.
        finished: Called with the number of each unit when it is finished, from any thread.
        progress: Called with the bytes of each block when it is finished, from any thread.

    Raises:
        KeyboardInterrupt: When the blocks in work are finished, or after half a second.
        Exception: Whatever a worker raised first.
    """
    count = workers or os.cpu_count() or 1
    limit = max(_LEAST_BUFFER, max_memory // count)
    queue = _Queue(plan, limit, done, wanted, finished)

    def work() -> None:
        try:
            buffer = torch.empty(limit, dtype=torch.uint8)
            while (taken := queue.take()) is not None:
                unit, block = taken
                progress(sink.put(block, fill(block, buffer, open_source)))
                queue.release(unit)
        except BaseException as error:
            queue.fail(error)

    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the threads are ours; torch's own would only get in their way
    threads = [threading.Thread(target=work, name=f"mscvt-{i}", daemon=True) for i in range(count)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(timeout=0.2)
    except BaseException:
        queue.stopped.set()
        deadline = time.monotonic() + _LAST_BLOCKS
        for thread in threads:
            if thread.is_alive():
                thread.join(timeout=max(0.0, deadline - time.monotonic()))
        raise
    finally:
        torch.set_num_threads(torch_threads)
    if queue.error is not None:
        raise queue.error
