"""Opening a Megatron checkpoint: its `args`, and which tensors each rank holds."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from mscvt.errors import MscvtError
from mscvt.formats.files import MappedFiles, file_inside
from mscvt.formats.megatron_torch.folder import find_iteration
from mscvt.formats.megatron_torch.paths import SHARD, is_rank_folder, rank_folder, rank_of
from mscvt.formats.megatron_torch.recorded import RankRecord, check_same_run, read_record
from mscvt.formats.torch_zip.archive import Directories, Directory
from mscvt.formats.torch_zip.reader import check_places, interpret, read_headers, tensors_in
from mscvt.formats.torch_zip.standins import Storage, StoredTensor, described
from mscvt.parallel.grid import Rank, ShardName
from mscvt.records import dataclass
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.sources import SourceTensor

_NOT_RECORDED = "It has no args that say its parallel sizes: give them as options, such as --tp 2 --pp 4 --ep 8."


@dataclass(frozen=True, slots=True)
class _Shard:
    """What is in a rank's file, and in all files whose headers are equal to its."""

    record: RankRecord
    tensors: Mapping[tuple[str, str], TensorInfo]
    """(chunk, key) -> the tensor; its file's number stands for that of any such file."""
    storages: tuple[Storage, ...]


class MegatronSource:
    """An opened checkpoint of one iteration.

    Attributes:
        folder: The iteration's folder.
        args: What the first rank's file recorded.
        records: What each rank's file recorded, after `open_ranks`.
        files: The shards opened so far, in order.
        tensors: Every tensor by (rank, chunk, key), after `open_ranks`.
    """

    ckpt_format = "torch"

    def __init__(self, folder: Path, iteration: int | str | None = None) -> None:
        """Find the iteration and read the `args` of its first rank.

        Raises:
            MscvtError: Where there is no such checkpoint, or its first file can't be read.
        """
        self.folder = find_iteration(folder, iteration)
        self.rank_folders = sorted(path for path in self.folder.iterdir() if is_rank_folder(path))
        if not self.rank_folders:
            raise MscvtError(f"{self.folder}: has no mp_rank_* folders; it holds a distributed checkpoint")
        self.files: list[Path] = []
        self.tensors: dict[ShardName, TensorInfo] = {}
        self.records: dict[Rank, RankRecord] = {}
        self._directories = Directories()
        self._parsed: dict[tuple[Directory, bytes], _Shard] = {}
        self._unchecked: dict[int, tuple[Storage, ...]] = {}
        self._lock = threading.Lock()
        self._maps = MappedFiles(self.files)
        self._first = self._path(self.rank_folders[0].name)
        self._record = self._open(self._first)[0].record
        self.args: Mapping[str, Any] = self._record.args

    @property
    def ranks(self) -> frozenset[tuple[int, int]]:
        """The (tensor, expert) ranks that have files, by the number of stages that `args` say."""
        pipelines = self.args.get("pipeline_model_parallel_size")
        several = pipelines if isinstance(pipelines, int) else 1
        found = (rank_of(path.name, several) for path in self.rank_folders)
        return frozenset((rank.tensor, rank.expert) for rank in found)

    @cached_property
    def some_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Key -> shape of what the first and the last rank hold, enough to tell whose names they are."""
        tensors: dict[str, tuple[int, ...]] = {}
        for path in {self._first, self._path(self.rank_folders[-1].name)}:
            tensors |= {key: info.shape for (_, key), info in self._open(path)[0].tensors.items()}
        return tensors

    def open_ranks(self, ranks: list[Rank], pipelines: int, experts: int) -> None:
        """Read the headers of the shards of all ranks.

        Raises:
            MscvtError: Where a shard is missing, damaged or of another run, or one is there that no rank owns.
        """
        expected = [rank_folder(rank, pipelines, experts) for rank in ranks]
        if missing := sorted(set(expected) - {path.name for path in self.rank_folders}):
            raise MscvtError(
                f"{self.folder}: {len(missing)} of {len(expected)} ranks are missing: {', '.join(missing[:20])}",
                hint="Is the copy complete, and does the checkpoint's topology agree with its args?"
                if self.args
                else _NOT_RECORDED,
            )
        tensors = max(rank.tensor for rank in ranks) + 1
        possible = {
            rank_folder(Rank(t, p, e), pipelines, experts)
            for t in range(tensors)
            for p in range(pipelines)
            for e in range(experts)
        }
        if foreign := sorted({path.name for path in self.rank_folders} - possible):
            raise MscvtError(
                f"{self.folder}: {', '.join(foreign[:20])} can't belong to a checkpoint with TP {tensors}, "
                f"PP {pipelines}, EP {experts}{', which is what its args say' if self.args else ''}",
                hint="Were two checkpoints saved into one folder?" if self.args else _NOT_RECORDED,
            )
        for rank, name in zip(ranks, expected, strict=True):
            self._add(rank, name)

    def open_present(self, pipelines: int) -> tuple[str, ...]:
        """Read the headers of whatever shards are there, for a look at a checkpoint that is not whole.

        Args:
            pipelines: The number of stages, which folders' names depend on.

        Returns:
            What is wrong with shards that can't be read or don't belong to the others.
        """
        self.files.clear()
        self.records.clear()
        self.tensors = {}
        faults = []
        for folder in self.rank_folders:
            try:
                self._add(rank_of(folder.name, pipelines), folder.name)
            except MscvtError as error:
                faults += [error.message, *error.faults]
        return tuple(faults)

    def _add(self, rank: Rank, name: str) -> None:
        """Open the shard of a rank."""
        path = self._path(name)
        shard, is_new = self._open(path)
        check_same_run(path, shard.record, self._first, self._record)
        number = len(self.files)
        self.files.append(path)
        for (chunk, key), info in shard.tensors.items():
            self.tensors[rank, chunk, key] = TensorInfo(info.dtype, info.shape, number, info.offset)
        self.records[rank] = shard.record
        if not is_new:
            self._unchecked[number] = shard.storages

    def tensor(self, name: ShardName) -> SourceTensor:
        """The bytes of a tensor, as something to copy regions from.

        Raises:
            MscvtError: Where its file is not what its headers say.
        """
        info = self.tensors[name]
        if info.file in self._unchecked:
            with self._lock:  # headers beside the data, which is about to be read in any case
                if storages := self._unchecked.get(info.file):
                    check_places(self.files[info.file], storages)
                    del self._unchecked[info.file]
        return self._maps.tensor(info)

    def close(self) -> None:
        """Let go of every open file."""
        self._maps.close()

    def _open(self, path: Path) -> tuple[_Shard, bool]:
        """What is in a shard, and whether it had to be parsed: most of a stage differ in nothing but weights."""
        headers = read_headers(path, known=self._directories)
        if headers.content in self._parsed:
            return self._parsed[headers.content], False
        state = interpret(headers)
        if not isinstance(state, dict):
            raise MscvtError(f"{path}: holds {described(state)}, expected a dict")
        record = read_record(path, state)
        chunks = [key for key in state if isinstance(key, str) and _is_chunk(key)]
        if not chunks:
            raise MscvtError(f"{path}: holds no model", hint="Is it a checkpoint that Megatron or mscvt saved?")
        tensors: dict[tuple[str, str], TensorInfo] = {}
        storages: dict[Storage, None] = {}
        for chunk in chunks:
            name = _only_chunk(chunk, record.args) if len(chunks) == 1 else chunk
            for key, info in tensors_in(path, 0, state[chunk], f"{chunk!r}"):
                if not key.endswith("_extra_state"):
                    tensors[name, key] = info
                    stored: StoredTensor = state[chunk][key]
                    storages[stored.storage] = None
        self._parsed[headers.content] = shard = _Shard(record, tensors, tuple(storages))
        return shard, True

    def _path(self, name: str) -> Path:
        return file_inside(self.folder, f"{name}/{SHARD}", "a rank's shard")


def _only_chunk(chunk: str, args: Mapping[str, Any]) -> str:
    """What we call the single chunk of a stage; training saves a single virtual stage as `model`."""
    if args.get("num_layers_per_virtual_pipeline_stage"):
        return "model0" if chunk == "model" else chunk
    return "model" if chunk == "model0" else chunk


def _is_chunk(key: str) -> bool:
    return key == "model" or (key.startswith("model") and key[5:].isdigit())
