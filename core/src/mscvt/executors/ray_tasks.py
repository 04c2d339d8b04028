"""Parts as tasks of a Ray cluster: Ray places them, cancels them, and runs those again whose node has died.

Source: https://docs.ray.io/en/latest/ray-core/tasks.html and .../fault_tolerance/tasks.html.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mscvt.errors import MscvtError
from mscvt.executors.executor import Moved, Part, Room, Work

_SECONDS = 0.5
"""Between two looks at how far the parts are."""
_REACHING = 10.0
"""Seconds to wait for a cluster's answer."""
_ENDING = 10.0
"""Seconds that parts have to end in which were told to."""


@contextmanager
def ray_cluster(address: str | None) -> Iterator[RayTasks]:
    """Be connected to a cluster; one that this program is connected to already is used as it is.

    Args:
        address: Where the cluster is; by default what Ray's own `RAY_ADDRESS` says, or the one that was started on this
            machine, or one that is this machine alone and ends with the connection.

    Raises:
        MscvtError: Where Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError:
        raise MscvtError(
            "--executor ray: Ray is not installed", hint="Install it on every machine: pip install 'mscvt[ray]'."
        ) from None
    is_ours = not ray.is_initialized()
    try:
        _reach(address)
        if is_ours:
            ray.init(address, log_to_driver=False, logging_level=logging.WARNING, include_dashboard=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise MscvtError(
            f"--executor ray: there is no cluster at {address or 'the default address'}: {error}",
            hint="Start one (ray start --head), and give its address with --ray-address.",
        ) from None
    try:
        yield RayTasks()
    finally:
        if is_ours:
            ray.shutdown()


def _reach(address: str | None) -> None:
    """See that somebody listens at an address `host:port`, where Ray would try for minutes.

    Raises:
        OSError: Where nobody does.
        ValueError: Where the port is no number.
    """
    host, colon, port = (address or "").rpartition(":")
    if colon and "://" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACHING).close()


class RayTasks:
    """Runs parts on the cluster that this program is connected to."""

    @property
    def room(self) -> Room:
        """Processors of all nodes that are alive."""
        import ray

        processors = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        return Room(max(1, sum(processors)), max(1, *processors))

    def run(self, work: Work, parts: Sequence[Part], threads: int, moved: Moved) -> list[Any]:
        """Run all parts; see `Executor`."""
        import ray

        counter: Any = ray.remote(_Counter).options(num_cpus=0, max_restarts=-1).remote()
        task = ray.remote(_run_part).options(num_cpus=threads, scheduling_strategy="SPREAD")
        pending = {task.remote(work, part.order, number, counter): number for number, part in enumerate(parts)}
        results: dict[int, Any] = {}
        seen = [0] * len(parts)
        try:
            while pending:
                ready, _ = ray.wait(list(pending), timeout=_SECONDS)
                for reference in ready:
                    number = pending.pop(reference)
                    results[number] = _result(reference)
                    seen[number], before = parts[number].nbytes, seen[number]
                    moved(seen[number] - before)
                if pending:
                    _count(counter, seen, moved)
        except BaseException:
            _end(list(pending))
            raise
        finally:
            ray.kill(counter)
        return [results[number] for number in range(len(parts))]


class _Counter:
    """Bytes that each part has moved, as its newest attempt says; an actor, which forgets them where its node dies."""

    def __init__(self) -> None:
        self._moved: dict[int, int] = {}

    def note(self, number: int, nbytes: int) -> None:
        self._moved[number] = nbytes

    def read(self) -> Mapping[int, int]:
        return self._moved


class _Reporter:
    """Tells the counter how far a part is, now and then."""

    def __init__(self, number: int, counter: Any) -> None:
        self._number, self._counter = number, counter
        self._moved, self._said = 0, 0.0
        self._lock = threading.Lock()

    def moved(self, nbytes: int) -> None:
        with self._lock:
            self._moved += nbytes
            if time.monotonic() - self._said < _SECONDS:
                return
            self._said = time.monotonic()
            self._counter.note.remote(self._number, self._moved)


def _run_part(work: Work, order: Any, number: int, counter: Any) -> Any:
    """What a task does."""
    return work(order, _Reporter(number, counter).moved)


def _result(reference: Any) -> Any:
    """What a part returned.

    Raises:
        MscvtError: What it raised, or why Ray gave it up.
    """
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        if isinstance(error, ray.exceptions.RayTaskError) and not isinstance(error.cause, ray.exceptions.RayError):
            raise error.cause from None
        first = str(error).strip().splitlines()[0]
        raise MscvtError(
            f"the cluster gave up a part of the work: {type(error).__name__}: {first}",
            hint="What was written is kept, and the same command goes on from there.",
        ) from None


def _end(references: list[Any]) -> None:
    """Interrupt parts, which note what they have done, and wait until they have ended."""
    import ray

    for reference in references:
        ray.cancel(reference)
    if references:
        ray.wait(references, num_returns=len(references), timeout=_ENDING)


def _count(counter: Any, seen: list[int], moved: Moved) -> None:
    """Pass on what the parts have moved since the last look; an attempt that begins again counts from where it was."""
    import ray

    try:
        noted: Mapping[int, int] = ray.get(counter.read.remote(), timeout=_SECONDS)
    except ray.exceptions.RayError:  # its node has died, and it comes back on another one
        return
    for number, nbytes in noted.items():
        if nbytes > seen[number]:
            moved(nbytes - seen[number])
            seen[number] = nbytes
