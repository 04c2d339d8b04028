"""The files that an unfinished conversion is to write, as its record names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mscvt.formats.files import is_below
from mscvt.plan.contents import OutputFile
from mscvt.records import dataclass


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file of the output."""

    path: str
    """Below the target."""
    tensors: int
    nbytes: int
    """Of all tensors."""
    labels: Mapping[str, int]
    """What `--only` knows it by."""


def planned_record(files: Iterable[OutputFile], finishing: Iterable[str]) -> dict[str, Any]:
    """What a conversion is to write, as plain values.

    Args:
        files: The files of the plan.
        finishing: The paths of what is written besides, last of all.
    """
    objects = [
        {"path": file.path, "tensors": len(file.tensors), "bytes": file.nbytes, "labels": dict(file.labels)}
        for file in files
    ]
    return {"files": objects, "finishing": list(finishing)}


def planned_files(objects: Any) -> tuple[PlannedFile, ...] | None:
    """The files of a record; None where it is damaged."""
    if not isinstance(objects, list) or not all(isinstance(entry, dict) for entry in objects):
        return None
    found = [_planned(entry) for entry in objects]
    files = tuple(file for file in found if file is not None)
    return files if len(files) == len(found) else None


def _planned(entry: Mapping[str, Any]) -> PlannedFile | None:
    path, labels = entry.get("path"), entry.get("labels")
    numbers = (entry.get("tensors"), entry.get("bytes"))
    if not is_below(path) or not path.isprintable() or not isinstance(labels, dict):
        return None
    if not all(type(number) is int and number >= 0 for number in (*numbers, *labels.values())):
        return None
    return PlannedFile(path, entry["tensors"], entry["bytes"], labels)


def missing_parts(files: Iterable[PlannedFile], whole: Iterable[str]) -> list[str]:
    """The files that are not whole, as few values of `--only` as say it.

    >>> files = [PlannedFile(f"{pp}{tp}", 1, 1, {"tp": tp, "pp": pp}) for pp in range(4) for tp in range(2)]
    >>> missing_parts(files, ["00", "01", "10"])
    ['pp=2-3', 'tp=1,pp=1']
    """
    everything, done = list(files), set(whole)
    labels = sorted({label for file in everything for label in file.labels}, reverse=True)  # tp, pp, ep
    numbers = {label: [file.labels[label] for file in everything if label in file.labels] for label in labels}
    full = {label: (min(found), max(found)) for label, found in numbers.items()}
    boxes = [
        {label: (number, number) for label, number in file.labels.items()}
        for file in everything
        if file.path not in done
    ]
    for label in labels:
        boxes = _joined(boxes, label)
    return [
        ",".join(_term(label, *box[label]) for label in labels if label in box and box[label] != full[label])
        for box in boxes
        if box != full
    ]


def _joined(boxes: list[dict[str, tuple[int, int]]], label: str) -> list[dict[str, tuple[int, int]]]:
    """Boxes that differ in one label alone, where they lie side by side, as one."""
    found: list[dict[str, tuple[int, int]]] = []
    for box in sorted(boxes, key=lambda box: [box[other] for other in sorted(box, key=lambda name: name == label)]):
        last = found[-1] if found else {}
        if {**last, label: None} == {**box, label: None} and last[label][1] + 1 == box[label][0]:
            found[-1] = {**box, label: (last[label][0], box[label][1])}
        else:
            found.append(box)
    return found


def _term(label: str, first: int, last: int) -> str:
    return f"{label}={first}" if first == last else f"{label}={first}-{last}"
