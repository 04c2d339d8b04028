"""What runs the parts of a job somewhere else: data goes there and comes back, and bytes are counted meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from mscvt.records import dataclass

Moved = Callable[[int], None]
"""Called with bytes that were just moved, from any thread."""
Work = Callable[[Any, Moved], Any]
"""Does one part: a function of a module, which takes what says the part. May be done again, as each part may."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a job."""

    order: Any
    """What says it, as data that can be pickled."""
    nbytes: int
    """How many bytes it will move."""


@dataclass(frozen=True, slots=True)
class Room:
    """Processors that an executor has."""

    processors: int
    """Those of all machines together."""
    largest: int
    """Those of the machine that has most."""


class Executor(Protocol):
    """Runs parts, in any order, some of them at the same time, and a part again whose machine has died."""

    @property
    def room(self) -> Room:
        """How much can run at the same time."""

    def run(self, work: Work, parts: Sequence[Part], threads: int, moved: Moved) -> list[Any]:
        """Run all parts.

        Args:
            work: Does one of them.
            parts: The parts.
            threads: Processors that one part keeps busy.
            moved: Called with the bytes that all parts together have moved since it was called last.

        Returns:
            What each part returned.

        Raises:
            MscvtError: What a part raised first, or why it could not be run; no other part is at work any more.
            KeyboardInterrupt: On Ctrl-C, when the parts have been told to end.
        """


def threads_of_part(asked: int | None, parts: int, room: Room) -> int:
    """How many threads each of some parts gets: what was asked for, or a share of the room, and at most one machine."""
    return asked or max(1, min(room.processors // max(1, parts), room.largest))
