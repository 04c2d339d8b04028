"""Running a plan: worker threads take blocks in order, find or gather their bytes and hand them to the sink."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mscvt.engine.blocks import Block, Gatherer, blocks_of
from mscvt.engine.freed import keep_freed_memory
from mscvt.engine.sinks import Sink
from mscvt.plan.contents import Content, Name, Plan, Unit
from mscvt.records import dataclass
from mscvt.tensors.computing import compute_alone, workers_at_work
from mscvt.tensors.sources import SourceTensor

DEFAULT_MEMORY = 64 << 20
"""Bytes of all buffers together. Larger ones are not faster: a block should stay in the processor's cache."""
_LEAST_BUFFER = 1 << 16
_BLOCKS, _BYTES = 16, 1 << 17
"""What a worker takes at once: so many blocks, if they have no more bytes. More are not faster, and are noted later."""
_LAST_BLOCKS = 0.5
"""Seconds that an interrupted run waits for the blocks in work."""

Progress = Callable[[int], None]
"""Called with the number of bytes that have just been written."""


@dataclass(slots=True)
class _Pending:
    """A unit of which blocks are not finished, how many, and whether all have been handed out."""

    unit: Unit
    blocks: int = 0
    is_complete: bool = False


class _Taken(NamedTuple):
    """What a worker takes at once."""

    blocks: Sequence[tuple[_Pending, Block]]
    is_small: bool
    """Whether working on it costs Python's time more than the processor's."""


class _Queue:
    """Hands out blocks in order and reports the units whose last block is finished."""

    def __init__(
        self,
        plan: Plan,
        limit: int,
        wanted: Callable[[Name], bool] | None,
        finished: Callable[[Sequence[Unit]], None],
        release: Callable[[], None],
        workers: int,
    ) -> None:
        self._lock = threading.Lock()
        self._workers, self._entered = workers, 0
        self._busy = threading.Lock()  # held until all workers have left
        self._busy.acquire()
        self._finished = finished
        self._release = release
        self._reported: list[Unit] = []
        self._blocks = self._generate(plan, limit, wanted)
        self._at_work = 1  # whoever made the queue
        self.turn = threading.Lock()
        self.stopped = threading.Event()
        self.is_interrupted = False
        self.error: BaseException | None = None

    def _generate(
        self, plan: Plan, limit: int, wanted: Callable[[Name], bool] | None
    ) -> Iterator[tuple[_Pending, Block]]:
        for whole in plan.units():
            unit = whole if wanted is None else _narrowed(whole, wanted)
            if not unit.contents:
                continue
            pending = _Pending(unit)
            for block in interleaved(unit.contents, limit):
                pending.blocks += 1
                yield pending, block
            pending.is_complete = True
            self._report(pending)

    def take(self) -> _Taken:
        """The next blocks: one, or as many small ones as are worth the locks; none where the work is over."""
        blocks: list[tuple[_Pending, Block]] = []
        room = 0 if self.stopped.is_set() else _BYTES
        with self._lock:
            while room > 0 and len(blocks) < _BLOCKS and (one := next(self._blocks, None)) is not None:
                blocks.append(one)
                room -= one[1].nbytes
        self._announce()
        return _Taken(blocks, bool(blocks) and room >= 0)

    def release(self, blocks: Sequence[tuple[_Pending, Block]]) -> None:
        with self._lock:
            for pending, _ in blocks:
                pending.blocks -= 1
                self._report(pending)
        self._announce()

    def _report(self, pending: _Pending) -> None:
        if pending.is_complete and pending.blocks == 0:
            self._reported.append(pending.unit)

    def _announce(self) -> None:
        """Report units outside of the lock: whoever notes them may wait for the disk, the others go on."""
        if self._reported:
            with self._lock:
                reported, self._reported = self._reported, []
            self._finished(reported)

    def fail(self, error: BaseException) -> None:
        with self._lock:
            self.error = self.error or error
        self.stopped.set()

    def enter(self) -> bool:
        """Begin to work; False where it is over already."""
        with self._lock:
            if self._at_work == 0:
                return False
            self._at_work += 1
            self._entered += 1
            return True

    def leave(self) -> None:
        """End to work; the last one says that nobody does any more."""
        with self._lock:
            self._at_work -= 1
            is_last = self._at_work == 0
            if self._at_work == 1 and (self._entered == self._workers or self.is_interrupted):
                self._say_done()
        if is_last:
            self._release()

    def _say_done(self) -> None:
        if self._busy.locked():
            self._busy.release()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all workers have left.

        What Python's standard library makes of locks won't do. Where an interrupt comes while `Thread.join` waits, it
        takes the thread for one that has ended (https://github.com/python/cpython/issues/90882); where one comes as
        `Event.wait` begins, the lock inside of the event stays taken, and the next wait never ends.
        """
        if timeout is not None:
            self._busy.acquire(timeout=timeout)
            return
        while not self._busy.acquire(timeout=0.2):  # in short turns, so that Ctrl-C is seen on every system
            pass

    def interrupt(self) -> None:
        """Have the workers end after the blocks in work."""
        with self._lock:
            self.is_interrupted = True
            if self._at_work == 1:
                self._say_done()
        self.stopped.set()


def _narrowed(unit: Unit, wanted: Callable[[Name], bool]) -> Unit:
    """A unit with only those targets that are wanted, and only the contents that have any."""
    contents: list[Content] = []
    for content in unit.contents:
        targets = tuple(filter(wanted, content.targets))
        if targets:
            contents.append(content if len(targets) == len(content.targets) else content._replace(targets=targets))
    return unit._replace(contents=tuple(contents))


def interleaved(contents: tuple[Content, ...], limit: int) -> list[Block]:
    """The blocks of contents that share sources, those that lie at the same place next to each other."""
    if len(contents) == 1:
        return blocks_of(contents[0], limit)
    blocks = [block for content in contents for block in blocks_of(content, limit)]
    return (
        sorted(blocks, key=lambda block: block.start / block.content.numel) if len(blocks) > len(contents) else blocks
    )


def _work(queue: _Queue, gatherer: Gatherer, sink: Sink, progress: Progress) -> None:
    """Take blocks and work on them until there are none."""
    taken = queue.take()
    while taken.blocks:
        if not taken.is_small:
            _put(taken, queue, gatherer, sink, progress)
            taken = queue.take()
            continue
        with queue.turn:  # of Python one thread runs at a time; two that take turns at it slow each other down
            while taken.is_small:
                _put(taken, queue, gatherer, sink, progress)
                taken = queue.take()


def _put(taken: _Taken, queue: _Queue, gatherer: Gatherer, sink: Sink, progress: Progress) -> None:
    done = nbytes = 0
    try:
        for _, block in taken.blocks:
            nbytes += sink.put(block, gatherer.bytes_of(block))
            done += 1
            if queue.stopped.is_set():
                break
    finally:
        queue.release(taken.blocks[:done])
    progress(nbytes)


def run_plan(
    plan: Plan,
    open_source: Callable[[Name], SourceTensor],
    sink: Sink,
    *,
    workers: int | None = None,
    max_memory: int = DEFAULT_MEMORY,
    wanted: Callable[[Name], bool] | None = None,
    finished: Callable[[Sequence[Unit]], None] = lambda units: None,
    progress: Progress = lambda nbytes: None,
    hold: Callable[[], None] = lambda: None,
    release: Callable[[], None] = lambda: None,
) -> None:
    """Run the units of a plan.

    Args:
        plan: The plan.
        open_source: Gives a source tensor by its name; called from many threads.
        sink: Takes the blocks.
        workers: Threads; by default one for each core.
        max_memory: Bytes for the buffers of all workers together.
        wanted: Whether a target is wanted; None for all of them.
        finished: Called with units that are finished, each once, from any thread; they have the wanted targets only.
        progress: Called with the bytes of blocks when they are finished, from any thread.
        hold: Called before any worker begins.
        release: Called once when no worker is at work any more. Where a run is interrupted while a worker waits for
            the disk, that is after this function has raised.

    Raises:
        KeyboardInterrupt: When the blocks in work are finished, or after half a second.
        Exception: Whatever a worker raised first.
    """
    count = workers or os.cpu_count() or 1
    limit = max(_LEAST_BUFFER, max_memory // count)
    queue = _Queue(plan, limit, wanted, finished, release, count)

    def work() -> None:
        if not queue.enter():
            return
        try:
            compute_alone()
            _work(queue, Gatherer(np.empty(limit, np.uint8), open_source), sink, progress)
        except BaseException as error:
            queue.fail(error)
        finally:
            queue.leave()

    keep_freed_memory()
    hold()
    threads = [threading.Thread(target=work, name=f"mscvt-{i}", daemon=True) for i in range(count)]
    try:
        with workers_at_work():
            for thread in threads:
                thread.start()
            queue.wait()
            for thread in threads:  # they have done, and are about to end
                thread.join()
    except BaseException:
        queue.interrupt()
        queue.wait(_LAST_BLOCKS)
        raise
    finally:
        queue.leave()
    if queue.error is not None:
        raise queue.error
