"""What is printed of folders: what was downloaded into them, and whether they are whole."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

from mscvt.cli.results import print_notes
from mscvt.cli.screen import say
from mscvt.errors import printable
from mscvt.views.sizes import counted, size_text

if TYPE_CHECKING:
    from mscvt.jobs.check import Check
    from mscvt.jobs.download import Download
    from mscvt.output.download import Origin


def download_object(done: Download) -> dict[str, Any]:
    """What was downloaded, as `--json` shows it."""
    origin = done.origin
    return {
        "target": str(done.target),
        "source": origin.source,
        "repository": origin.repository,
        "revision": origin.revision,
        "files": [
            {
                "path": name,
                "bytes": file.nbytes,
                "checksum": f"{file.sum.algorithm}:{file.sum.value}" if file.sum else None,
            }
            for name, file in origin.files.items()
        ],
        "bytes": done.nbytes,
        "fetched": done.fetched,
        "seconds": done.seconds,
        "notes": list(done.notes),
    }


def print_download(done: Download, go_on: str) -> None:
    """Say what was fetched, and how to go on."""
    target, origin = shlex.quote(str(done.target)), done.origin
    whole = f"{counted(len(origin.files), 'file')}, {done.nbytes:,} bytes"
    if done.fetched:
        speed = size_text(done.fetched / max(done.seconds, 1e-9))
        say(f"fetched {done.fetched:,} bytes in {done.seconds:.1f} s ({speed}/s); all of it is what the hub states")
    else:
        say(f"nothing was left to be fetched; mscvt check {target} compares checksums")
    say(f"{target} holds {origin.repository} at {origin.revision}: {whole}")
    print_notes(done.notes)
    say(go_on)


def check_object(check: Check) -> dict[str, Any]:
    """What a check found, as `--json` shows it."""
    return {
        "target": str(check.folder),
        "is_whole": check.is_whole,
        "model_type": check.model_type,
        "files": [
            {"path": file.path, "bytes": file.nbytes, "compared": file.compared, "problems": file.problems}
            for file in check.files
        ],
        "problems": list(check.problems),
        "tensors": check.tensors,
        "bytes": check.nbytes,
        "seconds": check.seconds,
        "notes": list(check.notes),
    }


def print_check(check: Check) -> None:
    """Say what is wrong, file by file, and what to do about it."""
    bad = [file for file in check.files if file.problems]
    for file in bad:
        say(f"bad: {printable(file.path)}: {printable('; '.join(file.problems))}")
    for problem in check.problems:
        say(f"bad: {printable(problem)}")
    wrong = counted(len(bad), "bad file") if bad else counted(len(check.problems), "problem")
    verdict = "whole" if check.is_whole else f"NOT whole: {wrong}"
    say(f"{verdict}; looked at {counted(len(check.files), 'file')}, {check.nbytes:,} bytes, in {check.seconds:.1f} s")
    compared = Counter(what for file in check.files for what in file.compared)
    compared_texts = [f"{what} of {counted(count, 'file')}" for what, count in compared.items()]
    if compared_texts:
        say(f"compared: {', '.join(compared_texts)}")
    if check.is_whole and check.model_type:
        say(f"{counted(check.tensors, 'tensor')}, all that {check.model_type} needs and config.json describes")
    print_notes(check.notes)
    if bad and check.origin:
        _print_repair(check, check.origin)
    if check.is_whole and check.model_type:
        say(f"go on with: mscvt plan hf2mg --load-dir {shlex.quote(str(check.folder))}")


def _print_repair(check: Check, origin: Origin) -> None:
    """Say how to fetch anew what is bad in a download."""
    folder = check.folder
    spoilt = [shlex.quote(str(folder / file.path)) for file in check.files if file.problems and file.nbytes]
    removed = f"rm {' '.join(spoilt)} && " if spoilt else ""
    say(f"to fetch these anew: {removed}{shlex.join(origin.command(folder))}")
