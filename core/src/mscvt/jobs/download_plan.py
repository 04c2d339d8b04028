"""Which files of a repository a conversion needs, and which of them a folder has already."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

from mscvt.errors import Faults, MscvtError, shown
from mscvt.formats.huggingface.config import CONFIG
from mscvt.formats.huggingface.config_files import config_names
from mscvt.formats.huggingface.weights import (
    INDEX_ENDING,
    INDEX_LIMIT,
    SINGLE_FILES,
    read_index,
    weight_names,
    weights_entry,
)
from mscvt.formats.peft import names as peft
from mscvt.formats.sums import sum_of
from mscvt.hubs.hub import Hub, HubFile
from mscvt.hubs.transfer import fetch
from mscvt.output.download import DownloadFolder, Origin, is_inside

_ADAPTERS = (peft.WEIGHTS, peft.WEIGHTS_BIN)
_SHOWN = 5


def plan_download(
    hub: Hub, folder: DownloadFolder, asked: Origin, started: Callable[[str, int], None], moved: Callable[[int], None]
) -> Origin:
    """Choose the files, by the rule by which the weights of a folder are chosen when it is read.

    Args:
        hub: Where the repository is.
        folder: The folder that is to be filled.
        asked: What was asked for, without files.
        started: Called when a phase begins.
        moved: Called with the bytes that were looked at.

    Raises:
        MscvtError: Where the hub lacks one of them, or the folder holds others in their place.
    """
    listing = hub.listing(asked.repository, asked.asked)
    if not listing.revision.isprintable():
        raise MscvtError(f"{asked.repository}: the hub calls its commit {shown(repr(listing.revision))}")
    files = {file.path: file for file in listing.files if is_inside(file.path) and file.nbytes >= 0}
    names = sorted(name for name in files if "/" not in name)
    entry = _entry(names)
    config = peft.CONFIG if entry in _ADAPTERS else CONFIG
    if entry is None or config not in names:
        raise _no_model(asked.repository, names, entry, config)
    wanted = [config, *config_names(names), entry]
    if entry.endswith(INDEX_ENDING):
        wanted += _listed(hub, folder, replace(asked, revision=listing.revision), files, entry)
    chosen = {name: files[name] for name in dict.fromkeys(wanted)}
    kept = _kept_files(folder.folder, chosen, entry, asked.repository, started, moved)
    return replace(asked, revision=listing.revision, files=chosen, kept=kept)


def _listed(hub: Hub, folder: DownloadFolder, asked: Origin, files: Mapping[str, HubFile], index: str) -> list[str]:
    """The files that an index names; it is fetched for that, and stays where the others will arrive."""
    if files[index].nbytes > INDEX_LIMIT:
        raise MscvtError(f"{asked.repository}: {index} has {files[index].nbytes:,} bytes, which no index has")
    fetch(hub, asked.repository, asked.revision, files[index], folder.staging / index, lambda nbytes: None)
    listed = sorted(set(read_index(folder.staging / index).values()))
    if absent := [name for name in listed if name not in files]:
        raise MscvtError(
            f"{asked.repository}: {index} names files that the hub does not have ({len(absent)}), such as "
            f"{shown(absent[0])}",
            hint="Is the upload complete? Another --revision may be.",
        )
    return listed


def _entry(names: Collection[str]) -> str | None:
    """The file by which the weights of a model are found, or those of an adapter where there is no model."""
    return weights_entry(names) or next((name for name in _ADAPTERS if name in names), None)


def _no_model(repository: str, names: list[str], entry: str | None, config: str) -> MscvtError:
    """Why a repository can't be converted, from what it has instead."""
    hint = "Take the model's release for transformers, which has config.json beside safetensors."
    if entry is not None:
        return MscvtError(f"{repository}: has weights and no {config}", hint=hint)
    others = ", ".join(map(shown, weight_names(names)[:_SHOWN])) or "none of another kind"
    return MscvtError(
        f"{repository}: has no weights that transformers would load ({' or '.join(SINGLE_FILES)}, or the index of "
        f"one), but {others}",
        hint=hint,
    )


def _kept_files(
    folder: Path,
    chosen: Mapping[str, HubFile],
    entry: str,
    repository: str,
    started: Callable[[str, int], None],
    moved: Callable[[int], None],
) -> tuple[str, ...]:
    """Those of the files that are in the folder already.

    Raises:
        MscvtError: Where others have their names, or would be read in their place.
    """
    faults = Faults()
    hint = "Move what is there away, or give another folder with --to."
    there = [name for name in chosen if os.path.lexists(folder / name)]
    if there:
        started("comparing what is there", sum(chosen[name].nbytes for name in there))
    for name in there:
        if not is_stated(folder / name, chosen[name], moved):
            faults.add(f"{name} is another file than that of {repository}", hint=hint)
    first = _entry({*chosen, *(path.name for path in folder.iterdir())})
    if first != entry:
        faults.add(f"{first} would be read in place of {entry}", hint=hint)
    faults.raise_if_any(f"{folder}: holds what is not of {repository}")
    return tuple(there)


def is_stated(path: Path, file: HubFile, moved: Callable[[int], None]) -> bool:
    """Whether a file is what the hub states."""
    if not path.is_file() or path.stat().st_size != file.nbytes:
        return False
    return file.sum is None or sum_of(path, file.sum.algorithm, moved) == file.sum
