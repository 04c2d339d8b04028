"""What is printed when all went well: for a reader, or as JSON."""

from __future__ import annotations

import json
import resource
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mscvt.cli.screen import say
from mscvt.cli.training import print_training_flags, training_flags
from mscvt.errors import MscvtError, printable
from mscvt.views.sizes import counted, size_text

if TYPE_CHECKING:
    from mscvt.jobs.conversion import Conversion, Result
    from mscvt.jobs.names import Names
    from mscvt.jobs.new_plugin import NewPlugin
    from mscvt.jobs.verify import Differing, Report
    from mscvt.plan.contents import OutputFile
    from mscvt.plugins.family import Plugin

_ORIGINS = 3
"""So many of the tensors that a differing one is made from are named."""


def print_json(command: str, shown: Mapping[str, Any]) -> None:
    """Print a result as one JSON object, which begins with the name of the command."""
    say(json.dumps({"command": command, **shown}, indent=2))


def plan_object(
    conversion: Conversion, target: Path | None, chosen: Sequence[OutputFile], notes: Iterable[str]
) -> dict[str, Any]:
    """What a conversion writes, as `--json` shows it with and without `--dry-run`."""
    return {
        "target": None if target is None else str(target),
        "files": [{"path": file.path, "bytes": file.nbytes, "tensors": len(file.tensors)} for file in chosen],
        "bytes": sum(file.nbytes for file in chosen),
        "notes": list(notes),
        "training_flags": training_flags(conversion, target),
    }


def error_object(error: MscvtError) -> dict[str, Any]:
    """An error, as `--json` shows it."""
    return {"message": error.message, "hint": error.hint, "faults": list(error.faults)}


def result_object(result: Result) -> dict[str, Any]:
    """What a run did, as `--json` shows it besides what it wrote."""
    return {
        "seconds": result.seconds,
        "is_complete": result.is_complete,
        "resumed_tensors": result.resumed_tensors,
        "staging": str(result.staging),
        "written": result.written,
        "missing": list(result.missing),
        "verified": result.verified,
        "peak_memory": peak_memory(),
    }


def report_object(report: Report, notes: Iterable[str]) -> dict[str, Any]:
    """What a comparison found, as `--json` shows it."""
    return {
        "is_equal": report.is_equal,
        "differences": [asdict(difference) for difference in report.differences],
        "tensors": report.tensors,
        "bytes": report.nbytes,
        "seconds": report.seconds,
        "notes": list(notes),
    }


def plugins_object(plugins: Iterable[Plugin]) -> dict[str, Any]:
    """The plugins, as `--json` shows them."""
    return {
        "plugins": [
            {**asdict(plugin), "error": error_object(MscvtError(plugin.error)) if plugin.error else None}
            for plugin in plugins
        ]
    }


def names_object(names: Names, notes: Iterable[str]) -> dict[str, Any]:
    """The names of a checkpoint, as `--json` shows them."""
    table = names.table
    return {
        "model_type": names.model_type,
        "rows": [asdict(row) for row in table.rows],
        "left_over": [asdict(row) for row in table.left_over],
        "missing": [asdict(row) for row in table.missing],
        "notes": [*notes, *names.notes],
    }


def new_plugin_object(written: NewPlugin) -> dict[str, Any]:
    """A plugin that was written, as `--json` shows it."""
    return {
        "target": str(written.target),
        "paths": list(written.paths),
        "unplaced": list(written.unplaced),
        "notes": list(written.notes),
    }


def peak_memory() -> int:
    """The most memory that this process held at a time, in bytes; pages of files that it read count too."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # https://man7.org/linux/man-pages/man2/getrusage.2.html


def print_result(conversion: Conversion, result: Result, notes: Iterable[str], proof: Sequence[str] = ()) -> None:
    """Say what was written, how, and what to do next.

    Args:
        conversion: What was planned.
        result: What was done.
        notes: What should be known.
        proof: The command that would compare source and result; empty where there is none.
    """
    target = shlex.quote(str(result.target))
    where = target if result.is_complete else shlex.quote(str(result.staging))
    if result.written:
        speed = size_text(result.written / max(result.seconds, 1e-9))
        say(
            f"wrote {counted(result.files, 'file')}, {result.written:,} bytes in {result.seconds:.1f} s "
            f"({speed}/s, memory at most {size_text(peak_memory())}) to {where}"
        )
    else:
        say(f"nothing was left to be written of {counted(result.files, 'file')} in {where}")
    if result.resumed_tensors and result.written:
        say(f"went on with earlier work: {counted(result.resumed_tensors, 'tensor')} were there already")
    if result.verified:
        say("verified: every byte was read again and is what was planned")
    print_notes(notes)
    if not result.is_complete and not result.missing:
        say(f"another run is completing {target}")
    elif not result.is_complete:
        rest = ", ".join(result.missing[:5]) + (", ..." if len(result.missing) > 5 else "")
        say(
            f"{counted(len(result.missing), 'file')} still to be written: {rest}; {target} appears when all of them are"
        )
    else:
        print_training_flags(training_flags(conversion, result.target))
        if proof and not result.verified:
            say(f"to compare every byte: {shlex.join(proof)}")


def print_report(report: Report, notes: Iterable[str]) -> None:
    """Say what differs."""
    for difference in report.differences:
        say(f"differs: {_differing(difference)}")
    count = len(report.differences)
    verdict = "equal" if report.is_equal else f"NOT equal: {counted(count, 'differing tensor')}"
    say(f"{verdict}; compared {report.tensors} tensors, {report.nbytes:,} bytes in {report.seconds:.1f} s")
    print_notes(notes)


def _differing(found: Differing) -> str:
    origins = ", ".join(found.made_from[:_ORIGINS]) + (", ..." if len(found.made_from) > _ORIGINS else "")
    size = "some of them NaN or infinite"
    if found.largest is not None and found.reach is not None:
        size = f"by at most {found.largest:.3g} where values reach {found.reach:.3g}"
    return (
        f"{found.tensor}, first at index {found.index}, in {found.file}; {found.elements:,} of "
        f"{counted(found.of, 'element')}, {size}; it is made from {origins}"
    )


def print_plugins(plugins: Sequence[Plugin]) -> None:
    """Say what each plugin serves, or why it can't be used."""
    if not plugins:
        say("no plugins are installed; each family of models has one, named mscvt-FAMILY")
    for plugin in plugins:
        served = ", ".join(plugin.model_types)
        say(f"{plugin.distribution} {plugin.version}: {served or plugin.entry_point or 'no plugin'}")
        if plugin.error:
            say(f"  error: {plugin.error}")
        for note in plugin.notes:
            say(f"  note: {note}")


def print_names(names: Names, notes: Iterable[str]) -> None:
    """Show the names of a checkpoint."""
    from mscvt.views.names import lines_of

    for line in lines_of(names.table):
        say(printable(line))
    print_notes((*notes, *names.notes))


def print_new_plugin(written: NewPlugin) -> None:
    """Say what was written, what could not be placed, and how to go on."""
    where = shlex.quote(str(written.target))
    say(f"wrote {counted(len(written.paths), 'file')} to {where}")
    for line in written.unplaced:
        say(f"not placed: {printable(line)}")
    print_notes(written.notes)
    say(f"go on with: python -m pip install --editable {where} && python -m pytest {where}")


def print_notes(notes: Iterable[str]) -> None:
    """Say what should be known."""
    for note in notes:
        say(f"note: {note}")
