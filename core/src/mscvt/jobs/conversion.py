"""Running a prepared conversion: allocate, fill, prove, commit."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mscvt.errors import MscvtError
from mscvt.jobs.comparison import check_equal_sources, compare_written
from mscvt.output.disk import sync
from mscvt.output.journal import Journal
from mscvt.output.staging import Staging
from mscvt.plan.contents import Name, OutputFile, Plan
from mscvt.plan.selection import select_files
from mscvt.tensors.sources import SourceTensor

SYNC_SECONDS = 30.0
"""How much work an interruption may cost at most, in time."""


@dataclass(frozen=True)
class Conversion:
    """A proven plan, and what it takes to run it.

    Attributes:
        plan: The plan.
        open_source: Gives a source tensor by its name.
        allocate: Makes an output file with room for its tensors; returns their offsets in bytes.
        offsets: The same offsets, of a file that was allocated before.
        finish: Writes what makes the output complete (index, tracker) into its folder, last of all.
        identity: Everything that the output's bytes depend on.
        replaceable: Patterns of the names in an output folder, which is all that `--overwrite` may replace.
        notes: What the user should know, one line each.
        training_flags: What to pass to the training script; empty towards Hugging Face.
    """

    plan: Plan
    open_source: Callable[[Any], SourceTensor]
    allocate: Callable[[Path, OutputFile], dict[Name, int]]
    offsets: Callable[[Path, OutputFile], dict[Name, int]]
    finish: Callable[[Path], None]
    identity: Mapping[str, Any]
    replaceable: tuple[str, ...]
    notes: tuple[str, ...] = ()
    training_flags: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run, which the output's bytes don't depend on."""

    workers: int | None = None
    max_memory: int | None = None
    """Bytes for buffers."""
    overwrite: bool = False
    resume: bool = False
    only: str | None = None
    verify: bool = False
    sources: tuple[Path, ...] = ()
    """The folders that are read, which must not be replaced."""
    sync_seconds: float = SYNC_SECONDS
    started: Callable[[str, int], None] = field(default=lambda what, nbytes: None)
    """Called when a phase begins: what it is, and how many bytes it will move."""
    progress: Callable[[int], None] = field(default=lambda nbytes: None)


@dataclass(frozen=True, slots=True)
class Result:
    """What was done."""

    target: Path
    files: int
    nbytes: int
    """Bytes of tensors in the files of this run."""
    seconds: float
    is_complete: bool
    """False where other parts of the output are still to be written (`--only`)."""
    resumed_units: int
    verified: bool


def run_conversion(conversion: Conversion, target: Path, settings: Settings) -> Result:
    """Run a conversion, or go on with one that was interrupted.

    Raises:
        MscvtError: Where the target is taken, the disk is full, or tensors that must be equal are not.
    """
    began = time.monotonic()
    chosen = select_files(conversion.plan.files, settings.only)
    nbytes = sum(file.nbytes for file in chosen)
    staging: Staging | None = None
    try:
        staging = Staging(target, conversion.identity, conversion.replaceable)
        _check_apart(staging.target, settings.sources)
        staging.open(
            overwrite=settings.overwrite,
            resume=settings.resume,
            shared=settings.only is not None,
            files=[file.path for file in chosen],
        )
        if staging.is_committed:
            resumed, is_complete = conversion.plan.unit_count, True
            if settings.verify:
                compare_written(conversion, staging.target, chosen, settings)
        else:
            resumed, is_complete = _write(conversion, staging, chosen, settings)
    except OSError as error:
        raise _disk_error(error, target) from error
    finally:
        if staging is not None:
            staging.close()
    seconds = time.monotonic() - began
    return Result(target, len(chosen), nbytes, seconds, is_complete, resumed, settings.verify)


def _write(conversion: Conversion, staging: Staging, chosen: list[OutputFile], settings: Settings) -> tuple[int, bool]:
    """Write what is missing; returns the units that were there before, and whether the output is complete."""
    paths = [file.path for file in chosen]
    _check_space(staging, chosen)
    check_equal_sources(conversion.plan, conversion.open_source)
    resumed = _fill(conversion, staging, chosen, settings)
    if settings.verify:
        try:
            compare_written(conversion, staging.data, chosen, settings)
        except MscvtError:
            staging.discard(paths)
            raise
    staging.mark_whole(paths)
    return resumed, staging.complete(
        [file.path for file in conversion.plan.files], conversion.finish, settings.overwrite
    )


def _check_apart(target: Path, sources: tuple[Path, ...]) -> None:
    """Refuse a target that holds what is read, which `--overwrite` would remove with it."""
    for source in sources:
        if Path(os.path.realpath(source)).is_relative_to(target):
            raise MscvtError(f"{target}: holds {source}, which is read", hint="Choose another --save-dir.")


def _disk_error(error: OSError, target: Path) -> MscvtError:
    hint = "What is done is kept: the same command goes on where this one stopped."
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return MscvtError(f"{target}: the disk is full ({error.strerror})", hint=f"Free some space. {hint}")
    return MscvtError(f"{error.filename or target}: {error.strerror or error}", hint=hint)


def _check_space(staging: Staging, chosen: list[OutputFile]) -> None:
    """Refuse to begin what can't end; what was written before is not needed again."""
    paths = [staging.data / file.path for file in chosen]
    there = sum(path.stat().st_blocks * 512 for path in paths if path.is_file())
    needed = sum(file.nbytes for file in chosen) - there
    free = shutil.disk_usage(staging.root).free
    if needed > free:
        raise MscvtError(
            f"{staging.target}: the output needs {needed:,} bytes more, the disk has {free:,} bytes free",
            hint="Free some space or choose another --save-dir.",
        )


def _fill(conversion: Conversion, staging: Staging, chosen: list[OutputFile], settings: Settings) -> int:
    """Allocate the files and run the plan into them; returns the units that were there before."""
    from mscvt.engine import DEFAULT_MEMORY, run_plan
    from mscvt.engine.sinks import FileSink, Place

    _allow_open_files(2 * len(chosen) + len(conversion.plan.files) + 256)
    settings.started("allocating", 0)
    journal = Journal(staging.root / "journal", [file.path for file in chosen])
    offsets = _allocate(conversion, staging, chosen)
    done = journal.finished_units()
    descriptors: list[int] = []
    try:
        places: dict[Name, Place] = {}
        for file in chosen:
            descriptor = os.open(staging.data / file.path, os.O_RDWR)
            descriptors.append(descriptor)
            places |= {name: Place(descriptor, offset) for name, offset in offsets[file.path].items()}
        journal.begin(descriptors, settings.sync_seconds)
        settings.started("converting", sum(file.nbytes for file in chosen))
        try:
            run_plan(
                conversion.plan,
                conversion.open_source,
                FileSink(places),
                workers=settings.workers,
                max_memory=settings.max_memory or DEFAULT_MEMORY,
                done=done,
                wanted=places.keys(),
                finished=journal.add,
                progress=settings.progress,
            )
        except Exception:
            with suppress(OSError):  # keep as much as the disk takes; the first error is the one to report
                journal.flush()
            raise
        journal.flush()
    except KeyboardInterrupt:
        descriptors.clear()  # a worker may be in a write still, and a number that is closed is given to another file
        raise
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return len(done)


def _allocate(conversion: Conversion, staging: Staging, chosen: list[OutputFile]) -> dict[str, Mapping[Name, int]]:
    """The offsets of all tensors, by file; files that are missing or damaged are made, and work on them forgotten."""
    offsets: dict[str, Mapping[Name, int]] = {}
    for file in chosen:
        found = _read_offsets(conversion, staging.data / file.path, file)
        if found is not None:
            offsets[file.path] = found
    lost = [file for file in chosen if file.path not in offsets]
    staging.forget([file.path for file in lost])
    for file in lost:
        path = staging.data / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".new")
        try:
            offsets[file.path] = conversion.allocate(temporary, file)
        except RuntimeError as error:
            _try_to_write(temporary)
            raise MscvtError(f"{path}: can't be allocated: {error}") from error
        sync(temporary)
        temporary.replace(path)
    staging.sync_names([file.path for file in lost])
    return offsets


def _read_offsets(conversion: Conversion, path: Path, file: OutputFile) -> dict[Name, int] | None:
    """The offsets of a file that was allocated before; None where it is not there or not what it was."""
    if not path.is_file():
        return None
    try:
        offsets = conversion.offsets(path, file)
    except (MscvtError, KeyError):
        return None
    return offsets if offsets.keys() == file.tensors.keys() else None


def _try_to_write(path: Path) -> None:
    """Write a little more to a file that torch could not write: it doesn't tell why, the system does.

    Raises:
        OSError: Where the disk is full or broken.
    """
    with path.open("ab") as file:
        file.write(bytes(1 << 20))
        file.flush()
        os.fsync(file.fileno())


def _allow_open_files(count: int) -> None:
    """Raise the soft limit on open files, as far as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
        if wanted < count:
            raise MscvtError(
                f"{count} files must be open at once, the system allows {hard}",
                hint="Raise the limit (ulimit -n), or write a part at a time with --only.",
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
