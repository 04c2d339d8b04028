"""The entry points that are installed, read from the folders of `sys.path`.

`importlib.metadata` finds the same ones, and imports the standard library's readers of mail and zip files for it, which
with its search takes 40 ms at every start. It is asked where something else than a folder may hold distributions.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from functools import reduce
from importlib import import_module
from importlib.machinery import PathFinder
from typing import Any

from mscvt.records import dataclass

UNKNOWN = "(unknown)", "?"
"""Name and version of what states neither."""


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """What a distribution declares under a name.

    Attributes:
        name: The name.
        value: A module, or an object in one, as `mscvt_mine:plugin`.
        distribution: The name of the distribution.
        version: Its version.
    """

    name: str
    value: str
    distribution: str = UNKNOWN[0]
    version: str = UNKNOWN[1]

    def load(self) -> Any:
        """The module or the object; whatever goes wrong in foreign code passes through."""
        module, colon, attribute = self.value.partition("[")[0].partition(":")
        path = attribute.strip().split(".") if colon else []
        return reduce(getattr, path, import_module(module.strip()))


def entry_points(group: str) -> list[EntryPoint]:
    """The entry points of a group; of distributions of one name the first on `sys.path` counts.

    Source: https://packaging.python.org/en/latest/specifications/entry-points/
    """
    folders = _folders()
    if folders is None:
        return list(_asked(group))
    seen: dict[str, str] = {}
    for folder in folders:
        seen.setdefault(_normalised(folder), folder)
    return [
        EntryPoint(name, value, *_stated(folder))
        for folder in seen.values()
        for name, value in _declared(_read(folder, "entry_points.txt"), group)
    ]


def _folders() -> list[str] | None:
    """The folders of all distributions' metadata; None where they can't be all."""
    if any(hasattr(finder, "find_distributions") for finder in sys.meta_path if finder is not PathFinder):
        return None
    found = []
    for path in map(os.fspath, sys.path):
        try:
            children = os.listdir(path or ".")
        except NotADirectoryError:
            return None  # a zip file may hold distributions
        except OSError:
            continue
        if path.lower().endswith(".egg"):
            return None
        found += [
            os.path.join(path, child) for child in children if child.lower().endswith((".dist-info", ".egg-info"))
        ]
    return found


def _normalised(folder: str) -> str:
    """The name of a distribution, in one of the spellings that are the same."""
    return re.sub(r"[-_.]+", "-", os.path.basename(folder).rpartition(".")[0].partition("-")[0]).lower()


def _read(folder: str, name: str) -> str:
    try:
        with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # few distributions declare any, and a half-removed one has no METADATA
        return ""


def _declared(text: str, group: str) -> Iterator[tuple[str, str]]:
    """Name and value of each entry point of a group."""
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif section == group and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield name.strip(), value.strip()


def _stated(folder: str) -> tuple[str, str]:
    """Name and version as the metadata states them, in lines like those of a mail's head."""
    text = _read(folder, "METADATA") or _read(folder, "PKG-INFO")
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    said = {name.lower(): value.strip() for name, _, value in lines}
    return said.get("name") or UNKNOWN[0], said.get("version") or UNKNOWN[1]


def _asked(group: str) -> Iterator[EntryPoint]:
    from importlib import metadata

    for point in metadata.entry_points(group=group):
        try:
            said = point.dist.metadata if point.dist else None  # parsed anew each time that it is asked for
            name, version = (said["Name"], said["Version"]) if said else UNKNOWN
        except Exception:  # a half-removed distribution has entry points and no METADATA
            name, version = UNKNOWN
        yield EntryPoint(point.name, point.value, name or UNKNOWN[0], version or UNKNOWN[1])
