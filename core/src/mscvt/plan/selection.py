"""`--only`: which output files a run writes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mscvt.errors import MscvtError, shown
from mscvt.plan.contents import OutputFile

_TERM = re.compile(r"([a-z]+)=(\d{1,18})(?:-(\d{1,18}))?")


def select_files(files: Sequence[OutputFile], only: str | None) -> list[OutputFile]:
    """The files that match an expression like `pp=0,ep=4-7`; all of them for None.

    Raises:
        MscvtError: Where it can't be understood, names what the files don't have, or matches nothing.
    """
    if only is None:
        return list(files)
    known = sorted({label for file in files for label in file.labels})
    hint = f"Write it like {'pp=3 or pp=0,ep=4-7' if 'pp' in known else 'file=1 or file=2-5'}."
    ranges: dict[str, tuple[int, int]] = {}
    for term in only.replace(" ", "").split(","):
        match = _TERM.fullmatch(term)
        if match is None or match[1] not in known or match[1] in ranges:
            raise MscvtError(
                f"--only {shown(only)}: can't understand {shown(repr(term))}; known are {', '.join(known)}", hint=hint
            )
        ranges[match[1]] = (int(match[2]), int(match[3] or match[2]))
    chosen = [file for file in files if all(low <= file.labels[label] <= high for label, (low, high) in ranges.items())]
    if not chosen:
        raise MscvtError(f"--only {only}: matches none of the {len(files)} files of the output", hint=hint)
    return chosen
