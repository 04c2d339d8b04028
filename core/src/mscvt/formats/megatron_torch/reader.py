"""Opening a Megatron checkpoint: its `args`, and which tensors each rank holds."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mscvt.errors import MscvtError
from mscvt.formats.files import MappedFiles, file_inside
from mscvt.formats.megatron_torch.paths import SHARD, TRACKER, is_rank_folder, iteration_folder, rank_folder
from mscvt.parallel.grid import Rank, ShardName
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.sources import PlainTensor, SourceTensor


def find_iteration(folder: Path, wanted: int | None = None) -> Path:
    """The folder of the iteration that the tracker names, or of the one wanted.

    Raises:
        MscvtError: Where there is no tracker or no such iteration.
    """
    if not folder.is_dir():
        raise MscvtError(f"{folder}: no such folder")
    there = sorted(path.name for path in folder.iterdir() if path.name.startswith("iter_") or path.name == "release")
    if wanted is None:
        try:
            with file_inside(folder, TRACKER, "the tracker").open(encoding="utf-8") as file:
                said = file.read(64).strip()
        except (OSError, ValueError) as error:
            raise MscvtError(f"{folder / TRACKER}: can't be read: {error}") from None
        if said != "release" and not (said.isascii() and said.isdigit()):
            raise MscvtError(f"{folder / TRACKER}: says {said!r}, expected a number or 'release'")
        name = iteration_folder(said if said == "release" else int(said))
    else:
        name = iteration_folder(wanted)
    if not (folder / name).is_dir():
        raise MscvtError(
            f"{folder}: has no {name}; there {'is' if len(there) == 1 else 'are'} {', '.join(there) or 'none'}",
            hint="Choose an iteration with --iteration.",
        )
    return folder / name


class MegatronSource:
    """An opened checkpoint of one iteration.

    Attributes:
        folder: The iteration's folder.
        args: What the first rank's file recorded.
        files: The shards opened so far, in order.
        tensors: Every tensor by (rank, part, key), after `open_ranks`.
    """

    def __init__(self, folder: Path, iteration: int | None = None) -> None:
        """Find the iteration and read the `args` of its first rank.

        Raises:
            MscvtError: Where there is no such checkpoint, or its first file can't be read.
        """
        self.folder = find_iteration(folder, iteration)
        self.rank_folders = sorted(path for path in self.folder.iterdir() if is_rank_folder(path))
        if not self.rank_folders:
            raise MscvtError(f"{self.folder}: has no mp_rank_* folders")
        first = self._shard(self.rank_folders[0].name)
        args = self._load(first).get("args")
        if not isinstance(args, Namespace):
            raise MscvtError(f"{first}: holds no args", hint="Is it a checkpoint that Megatron or mscvt saved?")
        self.args: dict[str, Any] = dict(vars(args))
        self.files: list[Path] = []
        self.tensors: dict[ShardName, TensorInfo] = {}
        self._parsed: dict[bytes, list[tuple[str, str, TensorInfo]]] = {}
        self._maps = MappedFiles(self.files)

    def open_ranks(self, ranks: list[Rank], pipelines: int, experts: int) -> None:
        """Read the headers of the shards of all ranks.

        Raises:
            MscvtError: Where a shard is missing or damaged, or one is there that no rank owns.
        """
        expected = [rank_folder(rank, pipelines, experts) for rank in ranks]
        if missing := sorted(set(expected) - {path.name for path in self.rank_folders}):
            raise MscvtError(
                f"{self.folder}: {len(missing)} of {len(expected)} ranks are missing: {', '.join(missing[:20])}",
                hint="Is the copy complete, and does the checkpoint's topology agree with its args?",
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
                f"PP {pipelines}, EP {experts}, which is what its args say",
                hint="Were two checkpoints saved into one folder?",
            )
        for rank, name in zip(ranks, expected, strict=True):
            path = self._shard(name)
            number = len(self.files)
            self.files.append(path)
            self._read_rank(rank, path, number)

    def _read_rank(self, rank: Rank, path: Path, number: int) -> None:
        """Note a shard's tensors; most shards of a stage differ in nothing but weights and are parsed once."""
        from mscvt.formats.torch_zip.archive import skeleton

        mark = skeleton(path)
        if mark not in self._parsed:
            self._parsed[mark] = list(self._parse(path, number))
        for part, key, info in self._parsed[mark]:
            self.tensors[rank, part, key] = TensorInfo(info.dtype, info.shape, number, info.offset)

    def _parse(self, path: Path, number: int) -> Iterator[tuple[str, str, TensorInfo]]:
        from mscvt.formats.torch_zip.pickled import tensors_in

        state = self._load(path)
        parts = [key for key in state if isinstance(key, str) and _is_model_part(key)]
        if not parts:
            raise MscvtError(f"{path}: holds no model")
        for part in parts:
            name = self._only_part(part) if len(parts) == 1 else part
            for key, info in tensors_in(path, number, state[part], f"{part!r}"):
                if not key.endswith("_extra_state"):
                    yield name, key, info

    def _only_part(self, part: str) -> str:
        """What we call the single part of a stage; training saves a single virtual stage as `model`."""
        if self.args.get("num_layers_per_virtual_pipeline_stage"):
            return "model0" if part == "model" else part
        return "model" if part == "model0" else part

    def _shard(self, name: str) -> Path:
        return file_inside(self.folder, f"{name}/{SHARD}", "a rank's shard")

    def _load(self, path: Path) -> dict[Any, Any]:
        from mscvt.formats.torch_zip.pickled import load_meta

        state = load_meta(path)
        if not isinstance(state, dict):
            raise MscvtError(f"{path}: holds {type(state).__name__}, expected a dict")
        return state

    def tensor(self, name: ShardName) -> SourceTensor:
        """The bytes of a tensor, as something to copy regions from."""
        return PlainTensor(self._maps.flat(self.tensors[name]))


def _is_model_part(key: str) -> bool:
    return key == "model" or (key.startswith("model") and key[5:].isdigit())
