"""Conversions that are divided: parts run where an executor has room, and the whole is put together here.

What a part is handed is data: a request and a selection. It plans anew, once in each process, and takes part in the
conversion as a run with `--only` does, so what lies on the disk tells how far it is, whoever began it. Its machine may
die at any time: the next one that is given the part goes on.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from math import prod
from pathlib import Path

from mscvt.dialects.registry import load_registry
from mscvt.errors import MscvtError
from mscvt.executors.executor import Executor, Moved, Part, threads_of_part
from mscvt.jobs.conversion import check_apart, check_space, run_conversion, staging_of
from mscvt.jobs.disk_errors import disk_error
from mscvt.jobs.prepared import Conversion, Interrupted, Result, Settings
from mscvt.jobs.request import Request
from mscvt.output.others import is_begun, noted, wait_for
from mscvt.output.staging import Staging
from mscvt.plan.contents import OutputFile
from mscvt.plan.selection import divide_files, select_files
from mscvt.plugins.registry import Registry
from mscvt.records import dataclass
from mscvt.tensors.info import ITEM_SIZES

Prepare = Callable[[Request, Registry], Conversion]
"""Plans a conversion; a function of a module, which other processes know by its name."""
_PATIENCE = 120.0
"""Seconds for which a process may outlive its machine in the eyes of a cluster that has given the machine up."""


@dataclass(frozen=True, slots=True)
class _Order:
    """A part of a conversion."""

    prepare: Prepare
    request: Request
    target: Path
    settings: Settings


def convert_in_parts(
    conversion: Conversion, prepare: Prepare, request: Request, target: Path, settings: Settings, executor: Executor
) -> Result:
    """Run a conversion as parts, or go on with one that was interrupted; it ends as with `run_conversion`.

    Args:
        conversion: The conversion, as this process has planned it.
        prepare: What has planned it, and will elsewhere.
        request: What it was planned from.
        target: Where the output will be.
        settings: How to run; workers and memory are those of each part.
        executor: Where parts run; all its machines see the folders.

    Raises:
        MscvtError: As `run_conversion`, or where a part can't be run.
        Interrupted: On Ctrl-C.
    """
    began = time.monotonic()
    chosen = select_files(conversion.plan.files, settings.only)
    staging = staging_of(conversion, target)
    check_apart(staging.target, conversion.sources)
    order = _Order(prepare, request.absolute(), staging.target, replace(settings, resume=False))
    try:
        with closing(staging), closing(conversion.source):
            staging.open(overwrite=settings.overwrite, resume=settings.resume, files=())
            if staging.is_committed:
                staging.close()
                return run_conversion(conversion, target, settings)
            missing = [file for file in chosen if not staging.is_whole(file.path)]
            resumed = [_noted(staging, file) for file in chosen]
            check_space(staging, missing)
            _write(order, conversion.plan.files, chosen if settings.verify else missing, executor)
            everything = [file.path for file in conversion.plan.files]
            is_complete = staging.complete(everything, conversion.finish, settings.overwrite)
            left = () if is_complete else tuple(staging.missing(everything))
    except OSError as error:
        raise disk_error(error, target, is_begun=True) from error
    except KeyboardInterrupt:
        root = shlex.quote(str(staging.root))
        raise Interrupted(
            f"what the parts have noted is kept in {root}; the same command goes on from there, "
            f"rm -r {root} gives it up"
        ) from None
    nbytes = sum(file.nbytes for file in chosen)
    return Result(
        target=target,
        staging=staging.root,
        files=len(chosen),
        nbytes=nbytes,
        written=nbytes - sum(nbytes for _, nbytes in resumed),
        seconds=time.monotonic() - began,
        is_complete=is_complete,
        missing=left,
        resumed_tensors=sum(tensors for tensors, _ in resumed),
        verified=settings.verify,
    )


def _noted(staging: Staging, file: OutputFile) -> tuple[int, int]:
    """How many tensors of a file are written, and their bytes."""
    there = noted(staging.target, file.path)
    sizes = [prod(shape) * ITEM_SIZES[dtype] for dtype, shape in file.tensors.values()]
    return len(there), sum(sizes[number] for number in there)


def _write(order: _Order, files: Sequence[OutputFile], wanted: Sequence[OutputFile], executor: Executor) -> None:
    """Have all parts written in which there is something to do."""
    settings, passes = order.settings, 2 if order.settings.verify else 1
    sizes = {file.path: file.nbytes for file in wanted}
    parts = []
    for only in divide_files(files, settings.only, executor.room.processors):
        theirs = [sizes[file.path] for file in select_files(files, only) if file.path in sizes]
        if theirs:
            parts.append((only, passes * sum(theirs)))
    if not parts:
        return
    threads = threads_of_part(settings.workers, len(parts), executor.room)
    plain = replace(settings, workers=threads, started=Settings().started, progress=Settings().progress)
    settings.started("converting", sum(nbytes for _, nbytes in parts))
    orders = [Part(replace(order, settings=replace(plain, only=only)), nbytes) for only, nbytes in parts]
    executor.run(_write_part, orders, threads, settings.progress)


@lru_cache(maxsize=1)
def _prepared(prepare: Prepare, request: Request) -> Conversion:
    """The plan that this process has of a conversion, parts of which it is given one after the other."""
    return prepare(request, load_registry())


def _write_part(order: _Order, moved: Moved) -> None:
    """Write a part, in the process that is given it."""
    conversion = _prepared(order.prepare, order.request)
    if not is_begun(order.target):
        raise MscvtError(
            f"{order.target}: its unfinished work is not there where {os.uname().nodename} looks",
            hint="All machines must see --save-dir, and what is read, under the same path on a shared file system.",
        )
    files = [file.path for file in select_files(conversion.plan.files, order.settings.only)]
    wait_for(order.target, files, _PATIENCE)
    run_conversion(conversion, order.target, replace(order.settings, progress=moved))
