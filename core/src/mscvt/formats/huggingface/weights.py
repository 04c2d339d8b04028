"""Which files of a folder hold its weights: those that transformers would load, in its order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from mscvt.errors import MscvtError, shown
from mscvt.formats.files import file_inside
from mscvt.formats.huggingface.folders import adapter_base
from mscvt.formats.json_files import read_json
from mscvt.records import dataclass

SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
"""Each is looked for before its index, and both before the next; `_get_resolved_checkpoint_files` of transformers."""
INDEX_ENDING = ".index.json"
"""Follows the name of the single file that the weights would be in."""
INDEX_LIMIT = 64 << 20
"""Bytes; that of a model of 1,000 experts in 60 layers has some 20 million."""
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "consolidated*.pt*", "*.gguf", "tf_model*.h5", "*.msgpack")
"""Files that hold weights of some kind."""
_SHARDS = ("model-?????-of-?????.safetensors", "pytorch_model-?????-of-?????.bin")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """What was chosen."""

    files: tuple[Path, ...]
    claimed: Mapping[str, str] | None
    """Tensor -> file, as the index says; None for a single file."""
    notes: tuple[str, ...]


def choose_weights(folder: Path) -> WeightFiles:
    """Find the files that hold a folder's weights.

    Raises:
        MscvtError: Where there are none, some are missing, or an index names what is no file of the folder.
    """
    names = sorted(path.name for path in folder.iterdir())
    entry = weights_entry(names)
    if entry is None:
        raise _no_weights(folder, names)
    if entry in SINGLE_FILES:
        path = file_inside(folder, entry, "the weights")
        index = f"{entry}{INDEX_ENDING}"
        return WeightFiles((path,), None, _notes(folder, names, entry, {entry}, index if index in names else None))
    claimed = read_index(file_inside(folder, entry, "the index"))
    listed = sorted(set(claimed.values()))
    files = tuple(file_inside(folder, name, f"{entry} names a file") for name in listed)
    return WeightFiles(files, claimed, _notes(folder, names, entry, set(listed), None))


def weights_entry(names: Collection[str]) -> str | None:
    """The file by which the weights are found among files of these names: the only one, or an index of several."""
    for single in SINGLE_FILES:
        for name in (single, f"{single}{INDEX_ENDING}"):
            if name in names:
                return name
    return None


def _notes(folder: Path, names: list[str], chosen: str, taken: set[str], index: str | None) -> tuple[str, ...]:
    """What else lies in the folder and is not read."""
    notes = []
    others = [name for name in weight_names(names) if name not in taken]
    if adapters := [name for name in others if name.startswith("adapter_")] or (
        ["adapter_config.json"] if "adapter_config.json" in names else []
    ):
        notes.append(
            f"{shown(adapters[0])}: the adapter of {adapter_base(folder)} is not applied, "
            f"the weights are those of {chosen}"
        )
    if others := [name for name in others if name not in adapters]:
        more = f" and {len(others) - _SHOWN} others" if len(others) > _SHOWN else ""
        notes.append(f"not read: {', '.join(map(shown, others[:_SHOWN]))}{more}; transformers takes {chosen} first")
    if index is not None:
        notes.append(f"not read: {index}; transformers takes {chosen} first")
    return tuple(notes)


def _no_weights(folder: Path, names: list[str]) -> MscvtError:
    """Why a folder has no weights, from what it has instead."""
    for pattern, single in zip(_SHARDS, SINGLE_FILES, strict=True):
        if shards := [name for name in names if fnmatchcase(name, pattern)]:
            return MscvtError(
                f"{folder}: {len(shards)} files {single.replace('.', '*.')} and no {single}.index.json",
                hint="Without the index nobody can tell which tensors there should be; download it.",
            )
    others = weight_names(names)
    if any(name.startswith("adapter_") for name in others):
        return MscvtError(
            f"{folder}: is a LoRA adapter of {adapter_base(folder)}, not a model",
            hint="Give the folder of the model that it was trained on.",
        )
    if variants := [name for name in others if _is_any(name, ("model.*.safetensors", "pytorch_model.*.bin"))]:
        first = variants[0]
        plain = f"{first.partition('.')[0]}.{first.rpartition('.')[2]}"
        return MscvtError(
            f"{folder}: has no {plain}, only {', '.join(map(shown, variants[:_SHOWN]))}",
            hint=f"If these are the weights you want, make a link: ln -s {shown(first)} {folder / plain}",
        )
    if others:
        return MscvtError(
            f"{folder}: no weights that transformers would load ({' or '.join(SINGLE_FILES)}, or the index of one), "
            f"only {', '.join(map(shown, others[:_SHOWN]))}",
            hint="Take the model's release for transformers, or convert these files to it first.",
        )
    return MscvtError(
        f"{folder}: no weights found, neither model*.safetensors nor pytorch_model*.bin",
        hint="Is the download complete? The folder of a Hugging Face checkpoint holds its weights beside config.json; "
        "`mscvt status` knows a download that was interrupted.",
    )


def weight_names(names: Iterable[str]) -> list[str]:
    """Those of the names that are of weights of some kind."""
    return [name for name in names if _is_any(name, _WEIGHTS)]


def _is_any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def read_index(path: Path) -> dict[str, str]:
    """Tensor -> file, as an index says.

    Raises:
        MscvtError: Where it is no index.
    """
    index = read_json(path, INDEX_LIMIT)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or set(map(type, weight_map.values())) != {str}:
        raise MscvtError(f"{path}: has no weight_map from tensor names to file names")
    if not "".join(weight_map).isprintable():
        strange = next(name for name in weight_map if not name.isprintable())
        raise MscvtError(f"{path}: {shown(repr(strange), 100)} is no name of a tensor")
    return weight_map
