"""Topology: which rank, stage and chunk holds which layer slot.

A *slot* is a place for a layer in the pipeline, real or noop; real layers fill the slots that are not noop in order.
A *chunk* is what one stage keeps in one dict of its file: the whole stage, or one virtual stage of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from mscvt.parallel.grid import Grid
from mscvt.records import dataclass


@dataclass(frozen=True, slots=True)
class Chunk:
    """The slots that a stage keeps in one dict of its file."""

    stage: int
    name: str
    """What the dict is called: `model`, or `model0`, `model1`, ... with virtual stages."""
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Topology:
    """All ranks and chunks of a checkpoint."""

    grid: Grid
    chunks: tuple[Chunk, ...]
    """By stage, then by number inside the stage."""
    first: Chunk
    """The chunk that holds the embedding."""
    last: Chunk
    """The chunk that holds the output layer, and usually the final norm and the MTP layers."""
    noop: frozenset[int] = frozenset()
    """Slots that hold no layer."""
    mtp_apart: Chunk | None = None
    """The chunk that holds the MTP layers, where it is not the last one."""
    is_whole: bool = False
    """Whether the checkpoint has whole tensors and no ranks, which only those have that load it."""

    @property
    def mtp(self) -> Chunk:
        """The chunk that holds the MTP layers."""
        return self.mtp_apart or self.last

    @property
    def last_layer(self) -> Chunk:
        """The chunk that holds the last slot."""
        return max((chunk for chunk in self.chunks if chunk.slots), key=lambda chunk: chunk.slots[-1])

    def chunks_of(self, stage: int) -> list[str]:
        """The names of a stage's chunks."""
        return [chunk.name for chunk in self.chunks if chunk.stage == stage]

    def place_layers(self) -> Iterator[tuple[Chunk, int]]:
        """Yield (chunk, slot number inside the chunk) for each real layer, in the order of the layers."""
        owner = {slot: (chunk, number) for chunk in self.chunks for number, slot in enumerate(chunk.slots)}
        for slot in sorted(owner):
            if slot not in self.noop:
                yield owner[slot]
