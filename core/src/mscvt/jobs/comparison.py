"""Proofs that need the bytes: what was written is read again, and sources that must be equal are compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mscvt.errors import Faults
from mscvt.plan.contents import shown
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.sources import SourceTensor

if TYPE_CHECKING:
    from mscvt.jobs.prepared import Conversion, Settings
    from mscvt.plan.contents import Name, OutputFile, Plan


def check_equal_sources(
    plan: Plan, open_source: Callable[[Any], SourceTensor], wanted: Callable[[Name], bool] | None = None
) -> None:
    """Compare source tensors of which only one is converted, so that nothing is lost with the other.

    Args:
        plan: The plan.
        open_source: Gives a source tensor by its name.
        wanted: Whether a target is wanted, where this is a part of a run; each part compares what it reads.

    Raises:
        MscvtError: Where they differ.
    """
    import numpy as np

    from mscvt.engine.same_bytes import same_bytes

    faults = Faults()
    for kept, dropped, numel in plan.equal if wanted is None else _equal_among(plan, wanted):
        ours, theirs = open_source(kept), open_source(dropped)
        step = 1 << 22
        for start in range(0, numel, step):
            count = min(step, numel - start)
            a, b = (t.region(start, (count,), (1,)).view(np.uint8) for t in (ours, theirs))
            if not same_bytes(a, b):
                faults.add(
                    f"{shown(dropped)} differs from {shown(kept)}, and only the second would be converted",
                    hint="Is the checkpoint what its configuration says (tie_word_embeddings, MTP)? "
                    "--replicas first takes what the first of several ranks holds.",
                )
                break
    faults.raise_if_any("tensors that must be equal are not")


def _equal_among(plan: Plan, wanted: Callable[[Name], bool]) -> list[tuple[Name, Name, int]]:
    """Which tensors must be equal of those that some targets are made from, and of those that nothing is made from."""
    if not plan.equal:
        return []
    read: set[Name] = set()
    others: set[Name] = set()
    for unit in plan.units():
        for content in unit.contents:
            (read if any(map(wanted, content.targets)) else others).update(content.sources)
    return [pair for pair in plan.equal if pair[0] in read or pair[0] not in others]


def compare_written(conversion: Conversion, folder: Path, chosen: Sequence[OutputFile], settings: Settings) -> None:
    """Read everything again, from both sides, and compare it byte for byte.

    Raises:
        MscvtError: Where anything differs, or a file can't be read.
    """
    from mscvt.engine import DEFAULT_MEMORY, run_plan
    from mscvt.engine.sinks import CompareSink
    from mscvt.formats.files import MappedFiles

    settings.started("verifying", sum(file.nbytes for file in chosen))
    written: dict[Name, TensorInfo] = {}
    for number, file in enumerate(chosen):
        offsets = conversion.offsets(folder / file.path, file)
        for name, (dtype, shape) in file.tensors.items():
            written[name] = TensorInfo(dtype, shape, number, offsets[name])
    maps = MappedFiles([folder / file.path for file in chosen])
    for path in maps.paths:
        _forget_pages(path)
    sink = CompareSink(lambda name: maps.tensor(written[name]))
    with closing(maps):
        run_plan(
            conversion.plan,
            conversion.source.tensor,
            sink,
            workers=settings.workers,
            max_memory=settings.max_memory or DEFAULT_MEMORY,
            wanted=written.__contains__,
            progress=settings.progress,
        )
    faults = Faults()
    files = {name: file.path for file in chosen for name in file.tensors}
    for name, found in sorted(sink.differences.items(), key=str):
        faults.add(f"{name} in {files[name]} differs first at element {found.first}, in {found.elements:,} elements")
    faults.raise_if_any("what was written is not what should be there; is the disk faulty?")


def _forget_pages(path: Path) -> None:
    """Have a file read from the disk again, and not from the memory that it was written from."""
    if not hasattr(os, "posix_fadvise"):  # macOS
        return
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
