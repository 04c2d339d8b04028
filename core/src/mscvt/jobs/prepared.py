"""What a conversion is before it runs, how it shall run, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from mscvt.description.description import Description
from mscvt.plan.contents import Name, OutputFile, Plan
from mscvt.records import dataclass
from mscvt.tensors.sources import Source

SYNC_SECONDS = 30.0
"""How much work an interruption may cost at most, in time."""


@dataclass(frozen=True)
class Conversion:
    """A proven plan, and what it takes to run it.

    Attributes:
        plan: The plan.
        source: What is read.
        allocate: Makes an output file with room for its tensors; returns their offsets in bytes.
        offsets: The same offsets, of a file that was allocated before.
        finish: Writes what makes the output complete (index, tracker) into its folder, last of all.
        finishing: The names of what `finish` writes, below the folder.
        identity: Everything that the output's bytes depend on; `source` is what `source_identity` said.
        sources: The folders that are read. The target may neither hold one of them nor lie inside of one.
        listed: The files that a checkpoint lists which is in a folder already, as paths below it. They are what
            `--overwrite` may replace, besides those with names that this conversion writes itself.
        seal: Completes a file whose tensors are all written, given their CRC-32; None where the format has none.
        notes: What the user should know, one line each.
        training_flags: What to pass to the training script; empty towards Hugging Face.
        source_layout: The model as the training stack's checkpoint has it that is read, where one is.
        target_layout: The model as the training stack's checkpoint has it that is written, where one is.
        load_flag: How the training script is told the folder.
        compared: Where the tensors are that must be equal, where that is not the source.
    """

    plan: Plan
    source: Source
    allocate: Callable[[Path, OutputFile], Mapping[Name, int]]
    offsets: Callable[[Path, OutputFile], Mapping[Name, int]]
    finish: Callable[[Path], None]
    finishing: tuple[str, ...]
    identity: Mapping[str, Any]
    sources: tuple[Path, ...]
    listed: Callable[[Path], Collection[str]]
    seal: Callable[[Path, OutputFile, Mapping[Name, int]], None] | None = None
    notes: tuple[str, ...] = ()
    training_flags: str = ""
    source_layout: Description | None = None
    target_layout: Description | None = None
    load_flag: str = "--load"
    compared: Source | None = None

    def replaceable(self, folder: Path) -> Collection[str]:
        """The exact paths below a folder that `--overwrite` may replace."""
        return {*(file.path for file in self.plan.files), *self.finishing, *self.listed(folder)}


def _ignore_phase(what: str, nbytes: int) -> None:
    """Nobody watches."""


def _ignore_bytes(nbytes: int) -> None:
    """Nobody watches."""


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
    started: Callable[[str, int], None] = _ignore_phase
    """Called when a phase begins: what it is, and how many bytes it will move."""
    progress: Callable[[int], None] = _ignore_bytes


@dataclass(frozen=True, slots=True)
class Result:
    """What was done."""

    target: Path
    staging: Path
    """Where unfinished work for the target lies."""
    files: int
    """Files that were asked for, whoever wrote them."""
    nbytes: int
    """Bytes of tensors in those files."""
    written: int
    """Bytes of tensors that this run wrote itself."""
    seconds: float
    is_complete: bool
    """Whether the target is there; False where other parts of the output are still to be written (`--only`)."""
    missing: tuple[str, ...]
    """The files that are still to be written, as paths below the target."""
    resumed_tensors: int
    """Tensors in the files that were asked for which earlier runs had written."""
    verified: bool


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, and what is left of the work."""
