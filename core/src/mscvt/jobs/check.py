"""Is a Hugging Face checkpoint whole: its files, their checksums, their headers, and the model that they make."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from mscvt.errors import MscvtError
from mscvt.errors.folding import fold
from mscvt.formats.files import file_inside
from mscvt.formats.huggingface.config import CONFIG, read_config
from mscvt.formats.huggingface.folders import refuse_other_folder
from mscvt.formats.huggingface.reader import HuggingFaceSource, read_file
from mscvt.formats.huggingface.weights import INDEX_ENDING, SINGLE_FILES, choose_weights, read_index, weights_entry
from mscvt.formats.stated_sums import Stated, stated_sums
from mscvt.formats.sums import sum_of
from mscvt.hubs.hub import HubFile
from mscvt.jobs.stopper import Stopper
from mscvt.output.download import Origin, read_origin
from mscvt.plugins.family import Family
from mscvt.plugins.registry import Registry
from mscvt.records import dataclass

_THREADS = 4
"""That compute checksums; a core computes SHA-256 of 1 to 2 GB a second, which few disks give."""


@dataclass(slots=True)
class CheckedFile:
    """A file that should be there."""

    path: str
    """Below the folder."""
    nbytes: int = 0
    problems: list[str] = field(default_factory=list)
    compared: list[str] = field(default_factory=list)
    """What was compared with what somebody states: `size`, `sha256`, `git-sha1`, `md5`."""


@dataclass(frozen=True, slots=True)
class Check:
    """What a check found."""

    folder: Path
    files: tuple[CheckedFile, ...]
    problems: tuple[str, ...]
    """What is wrong with the checkpoint and with no single file."""
    model_type: str | None
    """The model type whose tensors they are; None where they were not compared with any."""
    tensors: int
    origin: Origin | None
    """What `mscvt download` recorded."""
    seconds: float
    notes: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and not any(file.problems for file in self.files)

    @property
    def nbytes(self) -> int:
        """Bytes of all files that are there."""
        return sum(file.nbytes for file in self.files)


def check_checkpoint(
    folder: Path,
    registry: Registry,
    model_type: str | None = None,
    *,
    quick: bool = False,
    started: Callable[[str, int], None] = lambda what, nbytes: None,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> Check:
    """Look for everything that is wrong with a checkpoint; torch is not needed.

    Args:
        folder: The checkpoint.
        registry: The plugins.
        model_type: What to take it as; by default what `config.json` says.
        quick: Leave out checksums, for which every byte is read.
        started: Called when a phase begins.
        progress: Called with the bytes that were read, from any thread.

    Raises:
        MscvtError: Where there is no such folder, it is something else, or no plugin serves the model type that was
            asked for.
    """
    began = time.monotonic()
    refuse_other_folder(folder)
    family = registry.family(model_type) if model_type is not None else None
    problems: list[str] = []
    notes: list[str] = []
    origin, stated = _stated(folder, problems)
    weights = _weights(folder, problems)
    names = dict.fromkeys([CONFIG, *weights, *(origin.files if origin else ())])
    names |= dict.fromkeys(each.path for each in stated if each.must_be_there)
    files = {name: _look_at(folder, name) for name in names}
    for name, wanted in origin.files.items() if origin else ():
        _compare_size(files[name], wanted)
    if quick:
        notes.append("no checksums were compared")
    elif stated:
        _compare_sums(folder, files, stated, started, progress)
    else:
        notes.append(
            "nobody states checksums of these files: mscvt download fetched none of them, and no .md5 is there"
        )
    source = _open(folder, [files[name] for name in weights], problems) if weights else None
    config = _read_config(folder, files[CONFIG])
    if source is None or config is None:
        notes.append("the tensors were not compared with config.json: files are missing or damaged")
    else:
        notes += source.notes
        try:
            family = family or registry.recognise(config)
        except MscvtError as error:
            notes.append(f"the tensors were not compared with config.json: {error.message}")
        else:
            notes += _compare_tensors(folder, source, config, family, problems)
    return Check(
        folder=folder,
        files=tuple(files.values()),
        problems=tuple(problems),
        model_type=family.model_type.name if family else None,
        tensors=len(source.tensors) if source else 0,
        origin=origin,
        seconds=time.monotonic() - began,
        notes=tuple(notes),
    )


def _stated(folder: Path, problems: list[str]) -> tuple[Origin | None, list[Stated]]:
    """What a download recorded, and every checksum that anybody states."""
    origin, stated = None, list[Stated]()
    try:
        origin = read_origin(folder)
        stated += stated_sums(folder)
    except MscvtError as error:
        problems.append(error.message)
    if origin:
        stated += [Stated(name, file.sum, "the hub", True) for name, file in origin.files.items() if file.sum]
    return origin, list(dict.fromkeys(stated))


def _weights(folder: Path, problems: list[str]) -> list[str]:
    """The names of the files that hold the weights, and of their index; empty where nobody knows them."""
    entry = weights_entry([path.name for path in folder.iterdir()])
    try:
        if entry is None:
            choose_weights(folder)
        elif entry not in SINGLE_FILES:
            return [entry, *sorted(set(read_index(file_inside(folder, entry, "the index")).values()))]
    except MscvtError as error:
        problems.append(error.message)
    return [entry] if entry in SINGLE_FILES else []


def _look_at(folder: Path, name: str) -> CheckedFile:
    """A file's size, or why there is none."""
    file = CheckedFile(name)
    try:
        file.nbytes = file_inside(folder, name, name).stat().st_size
    except MscvtError as error:
        is_missing = not (folder / name).is_symlink() and not (folder / name).exists()
        file.problems.append("is missing" if is_missing else error.message.removeprefix(f"{name}: {folder / name} "))
    return file


def _compare_size(file: CheckedFile, wanted: HubFile) -> None:
    if file.problems:
        return
    file.compared.append("size")
    if file.nbytes != wanted.nbytes:
        file.problems.append(f"has {file.nbytes:,} bytes, the hub states {wanted.nbytes:,}")


def _compare_sums(
    folder: Path,
    files: Mapping[str, CheckedFile],
    stated: Iterable[Stated],
    started: Callable[[str, int], None],
    progress: Callable[[int], None],
) -> None:
    """Compare the checksums of files that have the right size; each file is read once for each algorithm."""
    from concurrent.futures import ThreadPoolExecutor

    wanted: dict[tuple[str, str], list[Stated]] = {}
    for each in stated:
        if each.path in files and not files[each.path].problems:
            wanted.setdefault((each.path, each.sum.algorithm), []).append(each)
    started("computing checksums", sum(files[name].nbytes for name, _ in wanted))
    stopper = Stopper(progress)
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="mscvt-check")
    try:
        sums = {key: pool.submit(sum_of, folder / key[0], key[1], stopper.moved) for key in wanted}
        for (name, algorithm), statements in wanted.items():
            file = files[name]
            file.compared.append(algorithm)
            try:
                found = sums[name, algorithm].result()
            except MscvtError as error:
                file.problems.append(error.message.removeprefix(f"{folder / name}: "))
                continue
            for each in statements:
                if found != each.sum:
                    file.problems.append(f"its {algorithm} is {found.value}, {each.by} states {each.sum.value}")
    finally:
        stopper.stop()
        pool.shutdown(wait=False, cancel_futures=True)


def _open(folder: Path, weights: list[CheckedFile], problems: list[str]) -> HuggingFaceSource | None:
    """Read all headers; where that fails, those of each file by itself, so that each bad one is named."""
    try:
        return HuggingFaceSource(folder)
    except MscvtError as error:
        for file in weights:
            try:
                if not file.problems and not file.path.endswith(INDEX_ENDING):
                    read_file(folder / file.path, 0)
            except MscvtError as fault:
                file.problems.append(fault.message.removeprefix(f"{folder / file.path}: "))
        if not any(file.problems for file in weights):
            problems += [error.message, *fold(error.faults)]
    return None


def _read_config(folder: Path, file: CheckedFile) -> dict[str, Any] | None:
    try:
        return read_config(folder)
    except MscvtError as error:
        if not file.problems:
            file.problems.append(error.message.removeprefix(f"{folder / CONFIG}: "))
    return None


def _compare_tensors(
    folder: Path, source: HuggingFaceSource, config: Mapping[str, Any], family: Family, problems: list[str]
) -> tuple[str, ...]:
    """Compare the tensors with those of the model; returns notes."""
    from mscvt.jobs.check_model import compare_with_model

    try:
        return compare_with_model(folder, source, config, family)
    except MscvtError as error:
        problems += [error.message, *fold(error.faults)]
    return ()
