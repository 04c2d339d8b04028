"""What is wrong with a folder that is to be read, where its name or its marks show it before it is opened."""

from __future__ import annotations

import shlex
from pathlib import Path

from mscvt.errors import MscvtError
from mscvt.errors.nearest import did_you_mean

HF, MG = "hf", "mg"
_MARKS = {HF: "config.json", MG: "latest_checkpointed_iteration.txt"}
"""What a checkpoint of either kind has beside its weights."""
_NAMES = {HF: "Hugging Face", MG: "Megatron"}


def check_folder(flag: str, folder: Path) -> None:
    """Refuse a folder that is not there, where a neighbour has nearly its name, and a file in its place.

    Raises:
        MscvtError: With the folder that was probably meant.
    """
    if folder.is_dir():
        return
    if folder.exists():
        raise MscvtError(
            f"{folder}: is a file, {flag} takes its folder", hint=f"Write {flag} {shlex.quote(str(folder.parent))}."
        )
    siblings: list[str] = []
    if folder.parent.is_dir():
        siblings = [str(path) for path in sorted(folder.parent.iterdir()) if path.is_dir()]
    question = did_you_mean(folder.name, [Path(path).name for path in siblings])
    if question:
        raise MscvtError(f"{folder}: no such folder", hint=f"{question} It is in {folder.parent.absolute()}.")


def check_kind(flag: str, folder: Path, wanted: str, other_way: str) -> None:
    """Refuse a checkpoint of the other kind, which is more help than to say what is missing in it.

    Args:
        flag: The option that gives the folder.
        folder: The folder.
        wanted: The kind that is wanted, `hf` or `mg`.
        other_way: What to do where it is of the other kind.

    Raises:
        MscvtError: Where the folder is of the other kind, or there is none.
    """
    other = HF if wanted == MG else MG
    if (folder / _MARKS[wanted]).exists():
        return
    if wanted == MG and not folder.exists():
        raise MscvtError(
            f"{folder}: no such folder", hint=f"{flag} takes the folder of a Megatron checkpoint, with {_MARKS[MG]}."
        )
    if (folder / _MARKS[other]).exists():
        raise MscvtError(
            f"{folder}: has {_MARKS[other]}, so it is a {_NAMES[other]} checkpoint; "
            f"expected one of {_NAMES[wanted]}, with {_MARKS[wanted]}",
            hint=other_way,
        )
