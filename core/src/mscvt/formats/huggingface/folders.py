"""Folders that are given in place of a Hugging Face checkpoint, named as what they are."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path

from mscvt.errors import MscvtError, shown

_OURS = frozenset({"config.json", "model.safetensors", "pytorch_model.bin"})
"""Whoever holds one of these was meant as a checkpoint of Hugging Face, whatever else lies beside."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""What `owner/name` on a hub looks like."""
_RANKS = re.compile(r"mp_rank_\d\d(_\d{3})*")
_ITERATION = re.compile(r"iter_\d{7}|release")


def refuse_other_folder(folder: Path) -> None:
    """Say what a path is that can't be a Hugging Face checkpoint.

    Raises:
        MscvtError: Where it is no folder, or the folder of something else.
    """
    try:
        is_file, is_folder = folder.is_file(), folder.is_dir()
    except OSError as error:  # a name longer than any, a disk that fails
        raise MscvtError(f"{shown(folder)}: can't be opened: {error.strerror}") from None
    if is_file:
        raise MscvtError(f"{folder}: is a file", hint=f"Give the folder that it lies in: {folder.parent}")
    if not is_folder:
        hint = "The folder of a Hugging Face checkpoint holds config.json beside its weights."
        if _REPOSITORY.fullmatch(str(folder)):
            hint = f"Is it a model of a hub? Download it first: mscvt download {folder} --to {folder.name}"
        raise MscvtError(f"{folder}: no such folder", hint=hint)
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise MscvtError(f"{folder}: can't be read: {error.strerror}") from None
    if _OURS.intersection(names):
        return
    for says, what, hint in _kinds(folder, names):
        if says:
            raise MscvtError(f"{folder}: {what}", hint=hint)


def _kinds(folder: Path, names: list[str]) -> list[tuple[bool, str, str]]:
    """Whether it is one, what it is, and what to do, for each kind of folder that people give instead."""
    snapshots = sorted(folder.glob("snapshots/*")) if folder.name.startswith("models--") else []
    return [
        (
            is_of_ranks(names),
            "is a Megatron checkpoint, expected one of Hugging Face",
            "`mscvt inspect` shows what is in it, `mscvt mg2hf` converts it to Hugging Face.",
        ),
        (
            any(entry.endswith(".distcp") for entry in names),
            "is a distributed checkpoint of torch, expected one of Hugging Face",
            "Save it in the format of transformers first.",
        ),
        (
            bool(snapshots),
            "is a model in the cache of the hub, which holds its files in a folder below",
            f"Give {snapshots[-1] if snapshots else folder}",
        ),
        (
            "adapter_config.json" in names,
            f"is a LoRA adapter of {adapter_base(folder)}, not a model",
            "Give the folder of the model that it was trained on.",
        ),
        (
            "params.json" in names,
            "is a checkpoint in the format of the model's own code, expected one of Hugging Face",
            "Take the release for transformers, which has config.json; it often lies in the folder above.",
        ),
        (
            any(entry.endswith(".gguf") for entry in names),
            "holds GGUF files, expected the checkpoint that they were made from",
            "Take the model's release for transformers, with config.json and safetensors.",
        ),
    ]


def is_of_ranks(names: Collection[str]) -> bool:
    """Whether a folder that holds these is a Megatron checkpoint, or one iteration of it."""
    is_tracked = "latest_checkpointed_iteration.txt" in names
    return is_tracked or any(_RANKS.fullmatch(name) or _ITERATION.fullmatch(name) for name in names)


def is_of_shards(names: Collection[str]) -> bool:
    """The same, or one iteration of a distributed checkpoint."""
    return is_of_ranks(names) or ".metadata" in names or "metadata.json" in names


def adapter_base(folder: Path) -> str:
    """The model that the adapter of a folder was trained on, for a message."""
    try:
        with (folder / "adapter_config.json").open("rb") as file:
            base = json.loads(file.read(1 << 20)).get("base_model_name_or_path")
    except (OSError, ValueError, RecursionError, AttributeError):
        base = None
    return shown(base) if isinstance(base, str) and base else "another model"
