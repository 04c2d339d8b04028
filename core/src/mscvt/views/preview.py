"""A conversion before a byte moves: what is written, where layers and tensors go, what it needs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mscvt.records import dataclass
from mscvt.views.experts import ExpertPlace
from mscvt.views.files import FileGroup
from mscvt.views.pipeline import Pipeline

if TYPE_CHECKING:
    from mscvt.views.shard import Shard
    from mscvt.views.way import Way


@dataclass(frozen=True, slots=True)
class Side:
    """A checkpoint of a training stack, which is read or written."""

    is_source: bool
    pipeline: Pipeline
    experts: tuple[ExpertPlace, ...]


@dataclass(frozen=True, slots=True)
class Preview:
    """What a plan shows."""

    sides: tuple[Side, ...]
    """What is read, what is written, as far as it is a training stack's."""
    groups: tuple[FileGroup, ...]
    files: int
    nbytes: int
    """Of all files that are written."""
    free: int | None
    """Bytes that the target's disk has; None where no target is known."""
    shard: Shard | None = None
    ways: tuple[Way, ...] = ()

    @property
    def is_detail(self) -> bool:
        """Whether one rank or one tensor was asked for."""
        return self.shard is not None or bool(self.ways)

    @property
    def fits(self) -> bool:
        """Whether the disk has room enough, as far as that is known."""
        return self.free is None or self.nbytes <= self.free


def preview_object(preview: Preview) -> dict[str, Any]:
    """The same, as `--json` shows it."""
    shard = preview.shard
    return {
        "sides": [asdict(side) for side in preview.sides],
        "groups": [asdict(group) for group in preview.groups],
        "free": preview.free,
        "shard": None if shard is None else asdict(shard),
        "ways": [asdict(way) for way in preview.ways],
    }
