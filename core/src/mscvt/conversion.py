"""Running a prepared conversion: allocate, fill, prove, commit."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mscvt.errors import Faults, MscvtError
from mscvt.plan.contents import Name, OutputFile, Plan
from mscvt.selection import select_files
from mscvt.sources import SourceTensor
from mscvt.staging import Staging

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
        open_output: Opens a finished output folder, to be compared with what it should hold.
        identity: Everything that the output's bytes depend on.
        notes: What the user should know, one line each.
        training_flags: What to pass to the training script; empty towards Hugging Face.
    """

    plan: Plan
    open_source: Callable[[Any], SourceTensor]
    allocate: Callable[[Path, OutputFile], dict[Name, int]]
    offsets: Callable[[Path, OutputFile], dict[Name, int]]
    finish: Callable[[Path], None]
    open_output: Callable[[Path], Callable[[Any], SourceTensor]]
    identity: Mapping[str, Any]
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
    staging = Staging(target, conversion.identity)
    try:
        done = staging.open(
            overwrite=settings.overwrite,
            resume=settings.resume,
            shared=settings.only is not None,
            selection="\n".join(file.path for file in chosen),
        )
        _check_space(staging, chosen, done)
        _check_equal(conversion)
        _fill(conversion, staging, chosen, done, settings)
        staging.mark_whole(file.path for file in chosen)
        is_complete = all(staging.is_whole(file.path) for file in conversion.plan.files)
        if settings.verify:
            _compare(conversion, staging, chosen, settings)
        if is_complete and staging.lock_commit():
            conversion.finish(staging.data)
            staging.commit(settings.overwrite)
    except OSError as error:
        raise _disk_error(error, staging) from error
    finally:
        staging.close()
    seconds = time.monotonic() - began
    return Result(target, len(chosen), nbytes, seconds, is_complete, len(done), settings.verify)


def _disk_error(error: OSError, staging: Staging) -> MscvtError:
    hint = "What is done is kept: the same command goes on where this one stopped."
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return MscvtError(f"{staging.target}: the disk is full ({error.strerror})", hint=f"Free some space. {hint}")
    where = f"{error.filename}: " if error.filename else ""
    return MscvtError(f"{where or str(staging.target) + ': '}{error.strerror or error}", hint=hint)


def _check_space(staging: Staging, chosen: list[OutputFile], done: set[int]) -> None:
    """Refuse to begin what can't end; what was written before is not needed again."""
    there = sum(path.stat().st_blocks * 512 for path in staging.data.rglob("*") if path.is_file())
    needed = sum(file.nbytes for file in chosen) - (there if done else 0)
    free = shutil.disk_usage(staging.root).free
    if needed > free:
        raise MscvtError(
            f"{staging.target}: the output needs {needed / 1e9:.2f} GB more, the disk has {free / 1e9:.2f} GB free",
            hint="Free some space or choose another --save-dir.",
        )


def _check_equal(conversion: Conversion) -> None:
    """Compare source tensors of which only one is converted, so that nothing is lost with the other."""
    import torch

    faults = Faults()
    for kept, dropped, numel in conversion.plan.equal:
        ours, theirs = conversion.open_source(kept), conversion.open_source(dropped)
        step = 1 << 22
        for start in range(0, numel, step):
            count = min(step, numel - start)
            a, b = (t.region(start, (count,), (1,)).view(torch.uint8) for t in (ours, theirs))
            if not torch.equal(a, b):
                faults.add(
                    f"{dropped} differs from {kept}, and Megatron keeps only one of them",
                    hint="If the second is right, the checkpoint is not what config.json says "
                    "(tie_word_embeddings, MTP).",
                )
                break
    faults.raise_if_any("tensors that must be equal are not")


def _fill(
    conversion: Conversion, staging: Staging, chosen: list[OutputFile], done: set[int], settings: Settings
) -> None:
    """Allocate the files and run the plan into them."""
    from mscvt.engine import DEFAULT_MEMORY, run_plan
    from mscvt.engine.sinks import FileSink, Place

    _allow_open_files(len(chosen) + len(conversion.plan.files) + 256)
    settings.started("allocating", 0)
    places: dict[Name, Place] = {}
    descriptors: list[int] = []
    try:
        for file in chosen:
            path = staging.data / file.path
            offsets = _allocated(conversion, path, file)
            descriptor = os.open(path, os.O_RDWR)
            descriptors.append(descriptor)
            places |= {name: Place(descriptor, offset) for name, offset in offsets.items()}
        staging.lock_files(descriptors)
        journal = _Journal(staging, descriptors, settings.sync_seconds)
        settings.started("converting", sum(file.nbytes for file in chosen))
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
        journal.flush()
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _allocated(conversion: Conversion, path: Path, file: OutputFile) -> dict[Name, int]:
    """The offsets of a file's tensors; a file appears under its name only when it is allocated whole."""
    if path.exists():
        return conversion.offsets(path, file)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    offsets = conversion.allocate(temporary, file)
    temporary.replace(path)
    return offsets


class _Journal:
    """Collects finished units and records them every so many seconds."""

    def __init__(self, staging: Staging, descriptors: list[int], seconds: float) -> None:
        self.staging, self.descriptors, self.seconds = staging, descriptors, seconds
        self.units: list[int] = []
        self.last = time.monotonic()

    def add(self, unit: int) -> None:
        self.units.append(unit)
        if time.monotonic() - self.last >= self.seconds:
            self.flush()

    def flush(self) -> None:
        self.staging.record(self.units, self.descriptors)
        self.units.clear()
        self.last = time.monotonic()


def _compare(conversion: Conversion, staging: Staging, chosen: list[OutputFile], settings: Settings) -> None:
    """Read everything again, from both sides, and compare it byte for byte."""
    from mscvt.engine import DEFAULT_MEMORY, run_plan
    from mscvt.engine.sinks import CompareSink

    settings.started("verifying", sum(file.nbytes for file in chosen))
    wanted = {name for file in chosen for name in file.tensors}
    sink = CompareSink(conversion.open_output(staging.data), wanted)
    run_plan(
        conversion.plan,
        conversion.open_source,
        sink,
        workers=settings.workers,
        max_memory=settings.max_memory or DEFAULT_MEMORY,
        wanted=wanted,
        progress=settings.progress,
    )
    faults = Faults()
    for name, element in sorted(sink.differences.items(), key=str):
        faults.add(f"{name} differs first at element {element}")
    if faults:
        staging.discard()
    faults.raise_if_any("what was written is not what should be there (is the disk faulty?); it was discarded")


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
