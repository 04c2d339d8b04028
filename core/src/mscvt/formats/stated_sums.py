"""Checksums that others have written down beside files: lists of MD5, and what downloaders note."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mscvt.errors import MscvtError, shown
from mscvt.formats.files import is_below
from mscvt.formats.sums import Sum, make_sum
from mscvt.records import dataclass

_MD5 = ".md5"
_LINE = re.compile(r"([0-9a-fA-F]{32})(?:[ \t]+\*?(\S.*?))?\s*")
_TAGGED = re.compile(r"MD5 ?\((.+)\) ?= ?([0-9a-fA-F]{32})\s*")
_LIMIT = 16 << 20
"""Bytes of a list; one of ten thousand files has less than one million."""
_NOTES = (".cache", "huggingface", "download")
"""Where huggingface_hub notes, in a folder that it fills, what it has fetched: `NAME.metadata` with the commit, the
ETag and a time in a line each. The ETag is the SHA-256 of what is in LFS, and git's SHA-1 of everything else."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What somebody states of a file."""

    path: str
    """Below the folder."""
    sum: Sum
    by: str
    """Who states it, for a message."""
    must_be_there: bool
    """Whether it is an error where the file is missing."""


def stated_sums(folder: Path) -> Iterator[Stated]:
    """Everything that is stated of a folder's files, but for the record of a download of ours.

    Raises:
        MscvtError: Where a list of checksums can't be understood.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix == _MD5 and path.is_file():
            yield from _listed(path)
        elif (blob := _blob_sum(path)) is not None:
            yield Stated(path.name, blob, "the cache of the hub", must_be_there=True)
    for path in sorted(folder.joinpath(*_NOTES).glob("*.metadata")):
        if (etag := _etag(path)) is not None:
            yield Stated(path.name.removesuffix(".metadata"), etag, "the hub", must_be_there=False)


def _listed(path: Path) -> Iterator[Stated]:
    """The checksums of a list as `md5sum` writes it, or of a single file that is named like the list."""
    with path.open("rb") as file:
        text = file.read(_LIMIT).decode("utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for line in lines:
        if match := _LINE.fullmatch(line):
            value, name = match[1], match[2] or path.stem
        elif match := _TAGGED.fullmatch(line):
            name, value = match.groups()
        else:
            raise MscvtError(
                f"{path}: {shown(repr(line), 60)} is no line of a list of checksums",
                hint="Write it anew with md5sum, or remove it.",
            )
        name = name.removeprefix("./")
        if not is_below(name):
            raise MscvtError(f"{path}: {shown(repr(name))} is not a file name inside {path.parent}")
        yield Stated(name, Sum("md5", value.lower()), path.name, must_be_there=True)


def _blob_sum(path: Path) -> Sum | None:
    """What a file is called in the cache of huggingface_hub, which is its checksum; None for any other file."""
    if not path.is_symlink():
        return None
    target = path.readlink()
    return _either(target.name) if target.parent.name == "blobs" else None


def _etag(path: Path) -> Sum | None:
    try:
        with path.open("rb") as file:
            lines = file.read(1 << 12).decode("utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return _either(lines[1].strip()) if len(lines) > 1 else None


def _either(value: str) -> Sum | None:
    return make_sum("sha256", value) or make_sum("git-sha1", value)
