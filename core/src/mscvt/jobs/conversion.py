"""Running a prepared conversion: allocate, fill, prove, commit."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from mscvt.errors import MscvtError
from mscvt.formats.files import mapped_at_once
from mscvt.jobs.comparison import check_equal_sources, compare_written
from mscvt.jobs.disk_errors import disk_error
from mscvt.jobs.prepared import Conversion, Interrupted, Result, Settings
from mscvt.output.disk import sync
from mscvt.output.files import OpenFiles, allocate_files
from mscvt.output.holding import Holding
from mscvt.output.identity import check_unchanged
from mscvt.output.journal import Journal
from mscvt.output.limits import allow_open_files
from mscvt.output.planned import planned_record
from mscvt.output.staging import Staging
from mscvt.plan.contents import Name, OutputFile
from mscvt.plan.selection import select_files
from mscvt.tensors.info import ITEM_SIZES

if TYPE_CHECKING:
    from mscvt.engine.sinks import Place

__all__ = ["Conversion", "Interrupted", "Result", "Settings", "run_conversion"]


def run_conversion(conversion: Conversion, target: Path, settings: Settings) -> Result:
    """Run a conversion, or go on with one that was interrupted.

    Raises:
        MscvtError: Where the target is taken, the disk is full, or tensors that must be equal are not.
        Interrupted: On Ctrl-C. A thread that waits for a slow disk keeps the locks until it has ended.
    """
    from mscvt.tensors.computing import loading_seconds

    began, loading = time.monotonic(), loading_seconds()
    chosen = select_files(conversion.plan.files, settings.only)
    read = [conversion.identity["source"]["files"], *([chosen] if settings.verify else [])]
    at_once = allow_open_files(read=sum(map(mapped_at_once, read)), written=len(chosen))
    runs = [
        _run(conversion, target, chosen, chosen[start : start + at_once], settings)
        for start in range(0, len(chosen), at_once)
    ]
    missing = runs[-1].missing
    return Result(
        target=target,
        staging=runs[-1].staging.root,
        files=len(chosen),
        nbytes=sum(file.nbytes for file in chosen),
        written=sum(run.written for run in runs),
        seconds=time.monotonic() - began - (loading_seconds() - loading),
        is_complete=missing is None,
        missing=tuple(missing or ()),
        resumed_tensors=sum(run.resumed_tensors for run in runs),
        verified=settings.verify,
    )


def _run(
    conversion: Conversion, target: Path, chosen: Sequence[OutputFile], files: Sequence[OutputFile], settings: Settings
) -> _Run:
    """Write files that may be open at once, which are some of those that were chosen."""
    run: _Run | None = None
    try:
        staging = staging_of(conversion, target)
        check_apart(staging.target, conversion.sources)
        run = _Run(conversion, staging, chosen, files, settings)
        run.run()
    except OSError as error:
        raise disk_error(error, target, is_begun=run is not None and run.leaves_work) from error
    except KeyboardInterrupt:
        if run is None or not run.leaves_work:
            raise
        raise Interrupted(run.left_behind()) from None
    finally:
        if run is not None:
            run.holding.release()
    return run


def staging_of(conversion: Conversion, target: Path) -> Staging:
    """Where the output of a conversion grows."""
    planned = planned_record(conversion.plan.files, conversion.finishing)
    return Staging(target, conversion.identity, conversion.replaceable, planned)


def check_apart(target: Path, sources: Sequence[Path]) -> None:
    """Refuse a target that holds what is read, which `--overwrite` would remove with it, or lies among it."""
    for source in sources:
        real = Path(os.path.realpath(source))
        if real.is_relative_to(target):
            raise MscvtError(f"{target}: holds {source}, which is read", hint="Choose another --save-dir.")
        if target.is_relative_to(real):
            raise MscvtError(f"{target}: lies inside of {source}, which is read", hint="Choose one beside it.")


def check_space(staging: Staging, files: Sequence[OutputFile]) -> None:
    """Refuse to begin what can't end; what was written before is not needed again."""
    paths = [staging.data / file.path for file in files]
    there = sum(path.stat().st_blocks * 512 for path in paths if path.is_file())
    needed = sum(file.nbytes for file in files) - there
    free = shutil.disk_usage(staging.root).free
    if needed > free:
        raise MscvtError(
            f"{staging.target}: the output needs {needed:,} bytes more, the disk has {free:,} bytes free",
            hint="Free some space or choose another --save-dir.",
        )


class _Run:
    """The writing of as many files as may be open at once.

    Attributes:
        holding: Closes locks and files when nobody uses them any more.
        is_begun: Whether there is work that the same command can go on with.
        written: Bytes of tensors that this run has written.
        resumed_tensors: Tensors of its files that were there before.
        missing: Files that still are to be written, by this conversion's other runs; None where the output is complete.
    """

    def __init__(
        self,
        conversion: Conversion,
        staging: Staging,
        chosen: Sequence[OutputFile],
        files: Sequence[OutputFile],
        settings: Settings,
    ) -> None:
        """Prepare to write some of the chosen files."""
        self.conversion, self.staging, self.settings = conversion, staging, settings
        self.chosen, self.files = chosen, files
        self.holding = Holding()
        self.holding.closing(staging.close)
        self.holding.closing(conversion.source.close)
        self.is_begun = False
        self.written = 0
        self.resumed_tensors = sum(len(file.tensors) for file in files)
        self.missing: Sequence[str] | None = None

    def run(self) -> None:
        """Write what is not there."""
        conversion, staging, settings = self.conversion, self.staging, self.settings
        staging.open(
            overwrite=settings.overwrite,
            resume=settings.resume,
            files=[file.path for file in self.files],
            again=settings.verify,
        )
        if staging.is_committed:
            if settings.verify:
                compare_written(conversion, staging.target, self.files, settings)
            return
        missing = [file for file in self.files if not staging.is_whole(file.path)]
        if missing:
            check_space(staging, [file for file in self.chosen if not staging.is_whole(file.path)])
            among = {name for file in missing for name in file.tensors}
            is_part = len(missing) < len(conversion.plan.files)
            compared = (conversion.compared or conversion.source).tensor
            check_equal_sources(conversion.plan, compared, among.__contains__ if is_part else None)
            self.is_begun = True
            self._fill(missing)
            self._seal(missing)
        if settings.verify:
            try:
                compare_written(conversion, staging.data, self.files, settings)
            except MscvtError:
                staging.discard([file.path for file in self.files])
                raise
        check_unchanged(conversion.identity["source"])
        staging.mark_whole([file.path for file in missing])
        everything = [file.path for file in conversion.plan.files]
        if not staging.complete(everything, conversion.finish, settings.overwrite):
            self.missing = staging.missing(everything)

    def _fill(self, files: Sequence[OutputFile]) -> None:
        """Allocate files and run the plan into them."""
        from mscvt.engine import DEFAULT_MEMORY, run_plan
        from mscvt.engine.sinks import FileSink

        conversion, settings = self.conversion, self.settings
        settings.started("allocating", 0)
        offsets = allocate_files(self.staging, files, conversion.allocate, conversion.offsets)
        places = self._places(files, offsets)
        output = OpenFiles([self.staging.data / file.path for file in files])
        self.holding.closing(output.close)
        sink = FileSink(places, output.descriptors, output.paths, checksums=conversion.seal is not None)
        journal = Journal(
            [self.staging.records[file.path] for file in files], output.descriptors, settings.sync_seconds
        )
        is_everything = len(places) == sum(len(file.tensors) for file in conversion.plan.files)
        nbytes = sum(file.nbytes for file in files)
        settings.started("converting", nbytes)
        settings.progress(nbytes - self.written)
        try:
            run_plan(
                conversion.plan,
                conversion.source.tensor,
                sink,
                workers=settings.workers,
                max_memory=settings.max_memory or DEFAULT_MEMORY,
                wanted=None if is_everything else places.__contains__,
                finished=lambda units: journal.add(sink.finished(units)),
                progress=settings.progress,
                hold=self.holding.hold,
                release=self.holding.release,
            )
        except KeyboardInterrupt:
            journal.stop()
            raise
        except Exception:
            with suppress(OSError):  # keep as much as the disk takes; the first error is the one to report
                journal.flush()
            raise
        journal.flush(is_last=True)

    def _places(self, files: Sequence[OutputFile], offsets: Sequence[Mapping[Name, int]]) -> dict[Name, Place]:
        """Where each tensor goes that is not written yet."""
        from mscvt.engine.sinks import Place

        places: dict[Name, Place] = {}
        needs_checksums = self.conversion.seal is not None
        for number, file in enumerate(files):
            noted = self.staging.records[file.path].tensors
            for index, (name, (dtype, shape)) in enumerate(file.tensors.items()):
                if index not in noted or (needs_checksums and noted[index] is None):
                    places[name] = Place(number, offsets[number][name], index)
                    self.written += prod(shape) * ITEM_SIZES[dtype]
        self.resumed_tensors -= len(places)
        return places

    def _seal(self, files: Sequence[OutputFile]) -> None:
        """See that every tensor was written, and complete the files where their format wants checksums."""
        for file in files:
            noted, path = self.staging.records[file.path].tensors, self.staging.data / file.path
            if lost := len(file.tensors) - len(noted):
                raise MscvtError(f"{path}: {lost} of its tensors were never written; the plan lacks them")
            if self.conversion.seal is not None:
                checksums = {name: noted[index] or 0 for index, name in enumerate(file.tensors)}
                self.conversion.seal(path, file, checksums)
                sync(path)

    @property
    def leaves_work(self) -> bool:
        """Whether there is work that the same command can go on with."""
        return self.is_begun and not self.staging.is_bare

    def left_behind(self) -> str:
        """What Ctrl-C leaves: how much, where, and what to do about it."""
        kept = 0
        for file in self.chosen:
            record = self.staging.records.get(file.path)
            is_whole = record is None and self.staging.is_whole(file.path)
            for index, (dtype, shape) in enumerate(file.tensors.values()):
                if is_whole or (record is not None and index in record.tensors):
                    kept += prod(shape) * ITEM_SIZES[dtype]
        nbytes, root = sum(file.nbytes for file in self.chosen), self.staging.root
        return (
            f"{kept:,} of {nbytes:,} bytes are kept in {root}; the same command goes on from there, "
            f"mscvt discard {shlex.quote(str(self.staging.target))} gives them up"
        )
