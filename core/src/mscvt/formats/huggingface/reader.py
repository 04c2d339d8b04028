"""Opening a Hugging Face checkpoint: which tensors there are, from headers alone, and their bytes on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mscvt.errors import MscvtError, shown
from mscvt.formats.files import POINTER, MappedFiles, refuse_pointer
from mscvt.formats.huggingface.folders import refuse_other_folder
from mscvt.formats.huggingface.safetensors_header import read_header
from mscvt.formats.huggingface.weights import choose_weights
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.quantized import dequantized, refuse_quantized
from mscvt.tensors.sources import NotedSource, SourceTensor


def open_source(folder: Path, *, dequantize: bool = False, config: Mapping[str, Any] | None = None) -> NotedSource:
    """Open a checkpoint, and decode what is quantized in it where that was asked for.

    Args:
        folder: Where it is.
        dequantize: Decode quantized weights; an error where there are none.
        config: The parsed `config.json`, which says how they are quantized, and what they are decoded to.

    Raises:
        MscvtError: Where files are missing, damaged or contradict the index, or weights are quantized and that was
            not said, or in a way that can't be decoded.
    """
    source = HuggingFaceSource(folder)
    if dequantize:
        return dequantized(source, config or {})
    refuse_quantized(source, config or {})
    return source


class HuggingFaceSource:
    """An opened checkpoint folder, each tensor as it stands in its file.

    Attributes:
        folder: Where it is.
        files: Its weight files, in the order of their names.
        tensors: Every tensor by name.
        notes: What else lies in the folder, and what its index says in vain.
    """

    def __init__(self, folder: Path) -> None:
        """Read all headers.

        Raises:
            MscvtError: Where files are missing, damaged or contradict the index.
        """
        refuse_other_folder(folder)
        self.folder = folder
        chosen = choose_weights(folder)
        self.files: Sequence[Path] = chosen.files
        self.notes = chosen.notes
        found: dict[str, TensorInfo] = {}
        for number, path in enumerate(self.files):
            its = read_file(path, number)
            if twice := its.keys() & found.keys():
                other = self.files[found[min(twice)].file].name
                raise MscvtError(f"{folder}: tensor {min(twice)!r} is in two files, {other} and {path.name}")
            found |= its
        self.tensors: Mapping[str, TensorInfo] = found
        if chosen.claimed is not None:
            self.notes += _check_index(folder, chosen.claimed, self.files, found)
        self._maps = MappedFiles(self.files)

    def tensor(self, name: str) -> SourceTensor:
        """The bytes of a tensor, as something to copy regions from."""
        return self._maps.tensor(self.tensors[name])

    def close(self) -> None:
        """Let go of every open file."""
        self._maps.close()


def _check_index(
    folder: Path, claimed: Mapping[str, str], files: Sequence[Path], tensors: Mapping[str, TensorInfo]
) -> tuple[str, ...]:
    """Compare the index with the files.

    Returns:
        A note on entries that no file holds. Casts of FP8 releases leave those of the scales behind; where a
        model needs one of them the plan says that it is missing.

    Raises:
        MscvtError: Where a tensor is in another file, or in none of the index.
    """
    absent, contradictions = {}, {}
    last = {file: Path(file).name for file in set(claimed.values())}
    found_in = [path.name for path in files]
    for name, file in claimed.items():
        if name not in tensors:
            absent[name] = f"{name} is not in {shown(file)}, where the index says it is"
        elif (found := found_in[tensors[name].file]) != last[file]:
            contradictions[name] = f"{name} is in {shown(found)}, the index says {shown(file)}"
    for name in (name for name in tensors if name not in claimed):
        contradictions[name] = f"{name} is in {shown(files[tensors[name].file].name)} and not in the index"
    if contradictions:
        raise MscvtError(
            f"{folder}: the index and the files contradict each other: {len(contradictions)} faults",
            faults=[fault for _, fault in sorted((contradictions | absent).items())],
            hint="Were files of two releases mixed? Download the index and all files again.",
        )
    if not absent:
        return ()
    return (f"the index has entries that no file holds ({len(absent)}), for example {min(absent)}",)


def read_file(path: Path, number: int) -> dict[str, TensorInfo]:
    """The tensors of file `number` of a checkpoint.

    Raises:
        MscvtError: Where it is damaged, or of another format.
    """
    if path.suffix == ".safetensors":
        return read_header(path, number)
    if path.suffix != ".bin":
        raise MscvtError(f"{path}: neither .safetensors nor .bin")
    try:
        with path.open("rb") as file:
            refuse_pointer(path, file.read(len(POINTER)))
    except OSError as error:
        raise MscvtError(f"{path}: can't be read: {error.strerror}") from None
    from mscvt.formats.torch_zip.reader import load, tensors_in

    return dict(tensors_in(path, number, load(path), "the file"))
