"""Finding an iteration in a checkpoint folder, or saying what the folder is instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from mscvt.errors import MscvtError
from mscvt.formats.files import file_inside
from mscvt.formats.megatron_torch.paths import TRACKER, is_rank_folder, iteration_folder

_ITERATION = re.compile(r"iter_(\d{7,})")
_SHOWN = 20
_METADATA, _VERSIONS = ".metadata", "metadata.json"
DISTRIBUTED = frozenset({_METADATA, _VERSIONS})
"""What an iteration's folder holds that is a distributed checkpoint: either of them."""


def is_distributed(folder: Path) -> bool:
    """Whether an iteration's folder is a distributed checkpoint."""
    return any((folder / name).exists() for name in DISTRIBUTED)


def is_plain(folder: Path) -> bool:
    """Whether an iteration's folder is one of torch.distributed.checkpoint, and not of Megatron."""
    return (folder / _METADATA).exists() and not (folder / _VERSIONS).exists()


def find_iteration(folder: Path, wanted: int | str | None = None) -> Path:
    """The folder of an iteration: the one wanted, the one that the tracker names, or the given folder itself.

    Args:
        folder: A checkpoint folder, or the folder of one of its iterations.
        wanted: The number of the iteration; None: the latest.

    Raises:
        MscvtError: Where there is no such iteration, or the folder is something else.
    """
    if not folder.is_dir():
        raise MscvtError(f"{folder}: no such folder")
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise MscvtError(f"{folder}: can't be read: {error.strerror}") from None
    there = [name for name in names if _ITERATION.fullmatch(name) or name == "release"]
    found = folder
    if TRACKER in names or there:
        found = folder / (iteration_folder(wanted) if wanted is not None else _tracked(folder, there))
    elif wanted is not None and _ITERATION.fullmatch(folder.name) and folder.name != iteration_folder(wanted):
        raise MscvtError(
            f"{folder}: is one iteration, and not {wanted}", hint="Give the folder above it, or leave out --iteration."
        )
    if not found.is_dir():
        shown = ", ".join(there[:_SHOWN]) or "none"
        raise MscvtError(
            f"{folder}: has no {found.name}; there {'is' if len(there) == 1 else 'are'} {shown}",
            hint="Choose an iteration with --iteration.",
        )
    _check_is_one(found, names if found is folder else sorted(path.name for path in found.iterdir()))
    return found


def _tracked(folder: Path, there: list[str]) -> str:
    """The name of the iteration that the tracker says is the latest."""
    if not (folder / TRACKER).exists():
        raise MscvtError(
            f"{folder}: has no {TRACKER}, which names the latest iteration; there are {', '.join(there[:_SHOWN])}",
            hint="Choose an iteration with --iteration, or give its folder.",
        )
    try:
        with file_inside(folder, TRACKER, "the tracker").open(encoding="utf-8") as file:
            said = file.read(64).strip()
    except (OSError, ValueError) as error:
        raise MscvtError(f"{folder / TRACKER}: can't be read: {error}") from None
    if said != "release" and not (said.isascii() and said.isdigit()):
        raise MscvtError(
            f"{folder / TRACKER}: says {said!r}, expected a number or 'release'",
            hint="Choose an iteration with --iteration.",
        )
    return iteration_folder(said if said == "release" else int(said))


def _check_is_one(folder: Path, names: list[str]) -> None:
    if any(is_rank_folder(Path(name)) or name in DISTRIBUTED for name in names):
        return
    for what, (is_it, hint) in _OTHER_FOLDERS.items():
        if is_it(names):
            raise MscvtError(f"{folder}: {what}", hint=hint)
    raise MscvtError(
        f"{folder}: has no mp_rank_* folders; it holds {', '.join(repr(name) for name in names[:_SHOWN])}",
        hint="Give the folder that Megatron's --save names, or one of its iter_* folders.",
    )


_OTHER_FOLDERS: dict[str, tuple[Callable[[list[str]], bool], str]] = {
    "is empty": (lambda names: not names, "Is the copy complete?"),
    "has .distcp files and no .metadata, which says what is in them": (
        lambda names: any(name.endswith(".distcp") for name in names),
        "Is the copy complete? Names that begin with a dot are easily left behind.",
    ),
    "is an adapter of PEFT, not a checkpoint of Megatron": (
        lambda names: "adapter_config.json" in names,
        "hf2mg --lora-load merges it into a model of Hugging Face, or with --save-lora-to-mg makes factors of it.",
    ),
    "is a Hugging Face checkpoint, not one of Megatron": (
        lambda names: "config.json" in names or any(name.endswith((".safetensors", ".bin")) for name in names),
        "Were the two sides swapped? hf2mg converts from Hugging Face.",
    ),
}
"""What a folder without ranks may be -> how to tell from the names in it, and what to do."""
