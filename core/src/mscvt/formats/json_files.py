"""JSON that nobody vouches for, parsed within bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mscvt.errors import MscvtError, shown
from mscvt.formats.files import refuse_pointer

_MOST_CONTAINERS = 1 << 21
"""Objects and arrays in one text. A few bytes each make Python objects of some 60; the headers and indexes of the
largest public models have a few hundred thousand."""


def read_json(path: Path, limit: int) -> Any:
    """Parse a file of at most `limit` bytes.

    Raises:
        MscvtError: Where it can't be read, is larger, or is no JSON that `parse_json` takes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise MscvtError(f"{path}: can't be read: {error.strerror}") from None
    if len(data) > limit:
        raise MscvtError(f"{path}: larger than {limit:,} bytes, which is more than any file of its kind")
    return parse_json(data, path)


def parse_json(data: bytes, path: Path, what: str = "") -> Any:
    """Parse JSON in UTF-8.

    Args:
        data: The text.
        path: The file that it comes from.
        what: Which part of the file it is, for errors (`its header `).

    Raises:
        MscvtError: Where it is no JSON, a name occurs twice in an object, it is nested too deep, or numbers or
            the whole are larger than they can be.
    """
    refuse_pointer(path, data)
    if data.count(b"{") + data.count(b"[") > _MOST_CONTAINERS:
        raise MscvtError(f"{path}: {what}holds more than {_MOST_CONTAINERS:,} objects and arrays")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError:
        raise MscvtError(f"{path}: {what}is not valid JSON: not in UTF-8") from None
    except RecursionError:
        raise MscvtError(f"{path}: {what}is not valid JSON: nested too deep") from None
    except MemoryError:
        raise MscvtError(f"{path}: {what}does not fit into memory") from None
    except ValueError as error:
        raise MscvtError(f"{path}: {what}is not valid JSON: {shown(error)}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {twice!r} occurs twice")
    return found
