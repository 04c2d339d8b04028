"""The pipeline as a grid: stages across, chunks and the slots in them down.

    chunk  layer  stage 0  stage 1
    model         E
           0      D 0      M 2
           1      M 1      -
                           N
                           H

A cell has the layer's number in Hugging Face, the column `layer` the one that the training stack's keys have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from mscvt.description.description import Description
from mscvt.model.family import MOE
from mscvt.parallel.topology import Chunk
from mscvt.records import dataclass
from mscvt.views.sizes import counted

EMBEDDING, DENSE, EXPERTS, NOOP, PREDICTION, NORM, HEAD, OTHER = (
    *("embedding", "dense", "experts", "noop", "mtp", "norm", "head", "other"),
)
LETTERS: Mapping[str, str] = MappingProxyType(
    {EMBEDDING: "E", DENSE: "D", EXPERTS: "M", NOOP: "-", PREDICTION: "P", NORM: "N", HEAD: "H", OTHER: "+"}
)
"""What a cell is -> the letter that says so where there are no colours."""
MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        EMBEDDING: "embedding",
        DENSE: "dense layer",
        EXPERTS: "layer with experts (MoE)",
        NOOP: "noop, no layer",
        PREDICTION: "multi-token prediction (MTP)",
        NORM: "final norm",
        HEAD: "output layer",
        OTHER: "other tensors outside of the layers",
    }
)
_ENDS: Mapping[str, str] = MappingProxyType({"embedding": EMBEDDING, "norm.final": NORM, "head": HEAD})
_ORDER = (EMBEDDING, PREDICTION, NORM, HEAD, OTHER)


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a chunk of a stage, in one place."""

    kind: str
    """One of `LETTERS`."""
    layer: int | None = None
    """The layer's number in Hugging Face's names."""
    slot: int | None = None
    """The slot's number in the whole pipeline, noop slots counted."""
    blocks: tuple[str, ...] = ()
    """What the layer consists of."""


@dataclass(frozen=True, slots=True)
class Row:
    """A place in a chunk, on all stages."""

    chunk: str
    """`model`, `model0`, ..."""
    number: int | None
    """The number that keys have in this chunk; None beside the layers."""
    cells: tuple[Cell | None, ...]
    """One for each stage; None where it has nothing there."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A model's layers and ends, where they stand."""

    tensor: int
    """Tensor-parallel ranks, as files are named by them."""
    stages: int
    expert: int
    """Expert-parallel ranks, as files are named by them."""
    ranks: int
    """Ranks that have a file."""
    is_whole: bool
    """Whether tensors are whole, and whoever loads them has ranks of its own."""
    rows: tuple[Row, ...]

    @property
    def about(self) -> str:
        """How many ranks there are, in words."""
        if self.is_whole:
            return "whole tensors, which ranks cut when they load them"
        return f"{counted(self.ranks, 'rank')} (tp {self.tensor}, pp {self.stages}, ep {self.expert})"

    @property
    def kinds(self) -> list[str]:
        """What occurs, in the order of `LETTERS`."""
        there = {cell.kind for row in self.rows for cell in row.cells if cell is not None}
        return [kind for kind in LETTERS if kind in there]


def pipeline_of(description: Description) -> Pipeline:
    """The grid of a model under its topology."""
    topology = description.topology
    grid = topology.grid
    layers: dict[tuple[int, str, int], Cell] = {}
    ends: dict[tuple[int, str], dict[Cell, None]] = {}
    for parameter in description.parameters:
        place, within = (parameter.stage, parameter.chunk), parameter.within
        if within is None:
            role = next((side.name for side in parameter.layout.right if not side.is_padding), "")
            ends.setdefault(place, {})[Cell(_ENDS.get(role, OTHER))] = None
        elif within.layer.mtp is not None:
            cell = Cell(PREDICTION, within.layer.index, blocks=within.layer.kind)
            ends.setdefault(place, {})[cell] = None
        else:
            layer = within.layer
            kind = EXPERTS if MOE[-1] in layer.kind else DENSE
            layers.setdefault((*place, within.number), Cell(kind, layer.index, None, layer.kind))
    rows = tuple(
        row for name in _names(topology.chunks) for row in _rows_of(name, topology.chunks, layers, ends, grid.pipeline)
    )
    return Pipeline(grid.tensor, grid.pipeline, grid.expert, sum(1 for _ in grid.ranks()), topology.is_whole, rows)


def _names(chunks: tuple[Chunk, ...]) -> list[str]:
    return list(dict.fromkeys(chunk.name for chunk in chunks))


def _rows_of(
    name: str,
    chunks: tuple[Chunk, ...],
    layers: Mapping[tuple[int, str, int], Cell],
    ends: Mapping[tuple[int, str], Mapping[Cell, None]],
    stages: int,
) -> Iterator[Row]:
    """The rows of the chunks of one name: what comes before the layers, the slots, what comes after them."""
    slots = {chunk.stage: chunk.slots for chunk in chunks if chunk.name == name}
    beside = {stage: list(ends.get((stage, name), ())) for stage in range(stages)}
    found = {kind: [[c for c in beside[stage] if c.kind == kind] for stage in range(stages)] for kind in _ORDER}
    yield from _beside(name, found[EMBEDDING])
    for number in range(max(map(len, slots.values()), default=0)):
        cells: list[Cell | None] = []
        for stage in range(stages):
            there = slots.get(stage, ())
            cell = layers.get((stage, name, number), Cell(NOOP)) if number < len(there) else None
            cells.append(None if cell is None else Cell(cell.kind, cell.layer, there[number], cell.blocks))
        yield Row(name, number, tuple(cells))
    for kind in _ORDER[1:]:
        yield from _beside(name, found[kind])


def _beside(name: str, cells: list[list[Cell]]) -> Iterator[Row]:
    for number in range(max(map(len, cells))):
        yield Row(name, None, tuple(found[number] if number < len(found) else None for found in cells))


def folded(pipeline: Pipeline, most: int = 8) -> list[tuple[Row, Row]]:
    """The first and the last of each run of rows that go on in the same way; runs of at most so many are not folded."""
    runs: list[list[Row]] = []
    for row in pipeline.rows:
        if runs and _goes_on(runs[-1][-1], row):
            runs[-1].append(row)
        else:
            runs.append([row])
    return [pair for run in runs for pair in ([(run[0], run[-1])] if len(run) > most else [(row, row) for row in run])]


def _goes_on(before: Row, row: Row) -> bool:
    if before.chunk != row.chunk or before.number is None or row.number is None:
        return False
    return all(
        (a is None and b is None)
        or (
            a is not None
            and b is not None
            and (a.kind, a.blocks) == (b.kind, b.blocks)
            and (a.layer is None or b.layer == a.layer + 1)
        )
        for a, b in zip(before.cells, row.cells, strict=True)
    )
