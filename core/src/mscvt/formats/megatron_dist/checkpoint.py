"""Opening a `torch_dist` checkpoint of Megatron: its `args`, and its global tensors as one rank would have them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from mscvt.errors import Faults, MscvtError, shown
from mscvt.formats.files import file_inside
from mscvt.formats.megatron_dist.reader import GlobalSource
from mscvt.formats.megatron_dist.writer import COMMON, VERSIONS
from mscvt.formats.megatron_torch.folder import find_iteration
from mscvt.formats.megatron_torch.recorded import RankRecord, read_record
from mscvt.formats.torch_zip.reader import load
from mscvt.formats.torch_zip.standins import described
from mscvt.layout.pairs import run_of
from mscvt.parallel.grid import Rank, ShardName
from mscvt.tensors.assembled import Assembled, Part
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.slots import Slot
from mscvt.tensors.sources import SourceTensor

_BESIDES = re.compile(
    r"(?:chained_\d+\.)?optimizer\..*|.*\._extra_state(?:/.*)?|rng_state(?:/.*)?|rerun_state_machine_state(?:/.*)?"
)
"""What a training run saves besides weights."""
_STATE = "common_state/shard_0_1"
"""The object that since 0.19 holds what `common.pt` did."""
_EMBEDDING = "embedding.word_embeddings.weight"
_INNER = re.compile(r"mtp\.layers\.\d+\.transformer_layer\..*")
"""A name that does not tell the version, as it would in the other format."""
_ALONE = Rank(0, 0, 0)
_LIMIT = 1 << 16


class DistCheckpoint:
    """An opened checkpoint of one iteration.

    Attributes:
        folder: The iteration's folder.
        args: What the checkpoint recorded, with the vocabulary's size as the tensors have it.
        files: Every file that is read.
        tensors: Every tensor by (the only rank, the only chunk, key), after `open`.
    """

    ckpt_format = "torch_dist"
    ranks = frozenset({(0, 0)})

    def __init__(self, folder: Path, iteration: int | str | None = None) -> None:
        """Find the iteration, and read `.metadata` and what the checkpoint recorded.

        Raises:
            MscvtError: Where there is no such checkpoint, or it can't be read.
        """
        self.folder = find_iteration(folder, iteration)
        _check_backend(self.folder)
        self._source = GlobalSource(self.folder, lambda name: not _BESIDES.fullmatch(name))
        self.record = self._read_record()
        self.args: Mapping[str, Any] = self.record.args
        if self.args and _EMBEDDING in self._source.tensors:  # which may have any number of rows beyond the real ones
            self.args = {**self.args, "padded_vocab_size": self._source.tensors[_EMBEDDING].shape[0]}
        common = [self.folder / COMMON] if (self.folder / COMMON).exists() else []
        self.files = [*self._source.files, *common]
        self.tensors: dict[ShardName, TensorInfo] = {}
        self._runs: dict[ShardName, tuple[tuple[str, int, int], ...]] = {}
        self._joined: dict[ShardName, Assembled] = {}

    @property
    def some_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name -> shape of its global tensors, enough to tell whose names they are."""
        return {name: info.shape for name, info in self._source.tensors.items() if not _INNER.fullmatch(name)}

    @property
    def names(self) -> Collection[str]:
        """The names of its global tensors."""
        return self._source.tensors.keys()

    def open(self, readings: Mapping[str, Sequence[Sequence[Slot]]], chunk: str) -> None:
        """Find the tensors of a model among the global ones; those that are left over keep their names.

        Args:
            readings: Key -> the ways in which the checkpoint has it, by the names that are there.
            chunk: How the only chunk is called.

        Raises:
            MscvtError: Where a global tensor has other leading dimensions than the model, or is there twice.
        """
        there, used, faults = self._source.tensors, set[str](), Faults()
        for key, ways in readings.items():
            used.update([slot.name for way in ways for slot in way])
            if len(ways) == 1:
                self._add((_ALONE, chunk, key), ways[0], faults)
            elif ways and self._are_equal(key, ways, faults):
                self._add((_ALONE, chunk, key), next(filter(self._fits, ways), ways[0]), faults)
        faults.raise_if_any(f"{self.folder}: its tensors are not those of the model that its args describe")
        for name in there.keys() - used:
            self.tensors[_ALONE, chunk, name] = there[name]
            self._runs[_ALONE, chunk, name] = ((name, 0, there[name].numel),)

    def cuts(self, name: ShardName) -> int:
        """Into how many runs of rows a matrix was cut by the ranks that saved it."""
        parts = {part for part, _, _ in self._runs[name]}
        return max(len({box.offsets[-2] for box, _ in self._source.chunks(part)}) for part in parts)

    def tensor(self, name: ShardName) -> SourceTensor:
        """The elements of a tensor."""
        runs = self._runs[name]
        if len(runs) == 1:
            return self._source.run(*runs[0])
        if name not in self._joined:
            parts, at = [], 0
            for other, start, count in runs:
                parts.append(Part(run_of(at, 0, count), partial(self._source.run, other, start, count)))
                at += count
            self._joined[name] = Assembled(self.tensors[name].dtype, parts)
        return self._joined[name]

    def close(self) -> None:
        """Let go of every open file."""
        self._joined.clear()
        self._source.close()

    def _read_record(self) -> RankRecord:
        path = self.folder / COMMON
        if path.exists():
            state = load(file_inside(self.folder, COMMON, "the checkpoint"))
        elif _STATE in self._source.metadata.objects:
            path = self.folder / _STATE
            state = self._source.object(_STATE)
            if isinstance(state, list) and len(state) == 1:
                state = state[0]
        else:
            state = {}
        if not isinstance(state, dict):
            raise MscvtError(f"{path}: holds {described(state)}, expected a dict")
        return read_record(path, state)

    def _fits(self, way: Sequence[Slot]) -> bool:
        """Whether global tensors have as many dimensions as a way of having a tensor says."""
        sizes = {slot: len(self._source.tensors[slot.name].shape) - len(slot.counts) for slot in way}
        return all(slot.dimensions in (None, size) for slot, size in sizes.items())

    def _are_equal(self, key: str, ways: Sequence[Sequence[Slot]], faults: Faults) -> bool:
        """Whether all ways in which a tensor is there are the same bytes."""
        first = [self._source.chunks(slot.name) for slot in ways[0]]
        for way in ways[1:]:
            if [self._source.chunks(slot.name) for slot in way] != first:
                names = " and ".join(" with ".join(slot.name for slot in one) for one in (ways[0], way))
                faults.add(
                    f"{key} is there twice, as {names}, and not with the same bytes",
                    hint="One of them would be lost; remove the one that is not the model's.",
                )
                return False
        return True

    def _add(self, name: ShardName, way: Sequence[Slot], faults: Faults) -> None:
        runs: list[tuple[str, int, int]] = []
        shapes: list[tuple[int, ...]] = []
        for there, index, counts, *_ in way:
            shape = self._source.tensors[there].shape
            if shape[: len(counts)] != counts:
                faults.add(
                    f"{there} has the shape {list(shape)}, expected it to begin with {list(counts)}",
                    hint="Do the checkpoint's args say how many layers and experts it has?",
                )
                return
            shape = shape[len(counts) :]
            number = 0
            for one, count in zip(index, counts, strict=True):
                number = number * count + one
            numel = prod(shape)
            runs.append((there, number * numel, numel))
            shapes.append(shape)
        whole = shapes[0]
        if len(shapes) > 1:
            if not all(shapes) or any(shape[1:] != whole[1:] for shape in shapes):
                faults.add(f"{way[0].name} and {way[1].name} have shapes that don't belong together")
                return
            whole = (sum(shape[0] for shape in shapes), *whole[1:])
        first, start, numel = runs[0]
        place = self._source.begins(first, start) if numel else (0, 0)
        self.tensors[name] = TensorInfo(self._source.tensors[first].dtype, whole, *place)
        self._runs[name] = tuple(runs)


def _check_backend(folder: Path) -> None:
    """Refuse distributed checkpoints of another kind.

    Raises:
        MscvtError: Where metadata.json says that it is one, or is not readable.
    """
    if not (folder / VERSIONS).exists():
        return
    path = file_inside(folder, VERSIONS, "the checkpoint")
    try:
        with path.open(encoding="utf-8") as file:
            said = json.loads(file.read(_LIMIT))
    except (OSError, ValueError, RecursionError) as error:
        raise MscvtError(f"{path}: can't be read: {shown(error)}") from None
    backend = said.get("sharded_backend") if isinstance(said, dict) else None
    if backend != "torch_dist":
        raise MscvtError(
            f"{path}: says that the checkpoint is of the kind {shown(repr(backend), 60)}, expected 'torch_dist'",
            hint="Load it with the Megatron that wrote it, and save it with --ckpt-format torch_dist or torch.",
        )
