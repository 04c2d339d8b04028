"""Opening a Hugging Face checkpoint: which tensors there are, from headers alone, and their bytes on demand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mscvt.errors import Faults, MscvtError
from mscvt.formats.files import MappedFiles, file_inside
from mscvt.formats.huggingface.safetensors_header import read_header
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.sources import PlainTensor, SourceTensor

if TYPE_CHECKING:
    from collections.abc import Mapping

_STEMS = (("model", "safetensors"), ("pytorch_model", "bin"))
_INDEX_LIMIT = 256 << 20
SCALE_SUFFIX = "_scale_inv"
"""What block-scaled FP8 releases append to a weight's name for its scales."""


class HuggingFaceSource:
    """An opened checkpoint folder.

    Attributes:
        folder: Where it is.
        files: Its weight files, in the order of their names.
        tensors: Every tensor by name; FP8 tensors to be decoded stand here as BF16.
    """

    def __init__(self, folder: Path, *, dequantize: bool = False) -> None:
        """Read all headers.

        Raises:
            MscvtError: Where files are missing, damaged or contradict the index, or FP8 weights are there
                and `dequantize` was not asked for.
        """
        self.folder = folder
        self.files, claimed = _weight_files(folder)
        self.tensors: dict[str, TensorInfo] = {}
        for number, path in enumerate(self.files):
            for name, info in _read_file(path, number).items():
                if name in self.tensors:
                    other = self.files[self.tensors[name].file].name
                    raise MscvtError(f"{folder}: tensor {name!r} is in two files, {other} and {path.name}")
                self.tensors[name] = info
        if claimed is not None:
            _check_index(folder, claimed, self.files, self.tensors)
        self._maps = MappedFiles(self.files)
        self._scales: dict[str, TensorInfo] = {}
        self._quantized: dict[str, TensorInfo] = {}
        self._find_quantized(dequantize)

    def _find_quantized(self, dequantize: bool) -> None:
        scaled = {name for name in self.tensors if name + SCALE_SUFFIX in self.tensors}
        if scaled and not dequantize:
            raise MscvtError(
                f"{self.folder}: {len(scaled)} weights are FP8 with scales of their own, for example {min(scaled)!r}",
                hint="--dequantize decodes them to bf16 on the way.",
            )
        faults = Faults()
        for name in sorted(scaled):
            info, scale = self.tensors[name], self.tensors.pop(name + SCALE_SUFFIX)
            blocks = tuple(-(-size // 128) for size in info.shape)
            if info.dtype != "F8_E4M3" or len(info.shape) != 2 or scale.shape != blocks or scale.dtype != "F32":
                faults.add(
                    f"{name}: {info.dtype} {list(info.shape)} with scales {scale.dtype} {list(scale.shape)}, "
                    f"expected F8_E4M3 of two dimensions with one F32 scale for each block of 128 x 128"
                )
                continue
            self._scales[name], self._quantized[name] = scale, info
            self.tensors[name] = replace(info, dtype="BF16")
        if dequantize:
            for name in sorted(name for name, info in self.tensors.items() if info.dtype.startswith("F8_")):
                if name not in scaled:
                    faults.add(f"{name}: {self.tensors[name].dtype} and no {name + SCALE_SUFFIX} to decode it with")
        faults.raise_if_any(f"{self.folder}: scales that don't fit their weights")

    def tensor(self, name: str) -> SourceTensor:
        """The bytes of a tensor, as something to copy regions from."""
        if name in self._quantized:
            from mscvt.formats.huggingface.fp8 import BlockQuantizedTensor

            info, scale = self._quantized[name], self._scales[name]
            return BlockQuantizedTensor(
                self._maps.flat(info).view(info.shape), self._maps.flat(scale).view(scale.shape)
            )
        return PlainTensor(self._maps.flat(self.tensors[name]))


def _weight_files(folder: Path) -> tuple[list[Path], Mapping[str, str] | None]:
    """The files of a checkpoint, and its index where it has one."""
    if not folder.is_dir():
        raise MscvtError(f"{folder}: no such folder")
    for stem, ending in _STEMS:
        index = folder / f"{stem}.{ending}.index.json"
        if index.exists() or index.is_symlink():
            claimed = _read_index(file_inside(folder, index.name, "the index"))
            names = sorted(set(claimed.values()))
            return [file_inside(folder, name, f"{index.name} names a file") for name in names], claimed
        found = sorted(path.name for path in folder.glob(f"{stem}*.{ending}"))
        if len(found) > 1:
            raise MscvtError(
                f"{folder}: {len(found)} files {stem}*.{ending} and no {index.name}",
                hint="Without the index nobody can tell whether all files are there; download it.",
            )
        if found:
            return [file_inside(folder, found[0], "the weights")], None
    raise MscvtError(
        f"{folder}: no weights found, neither model*.safetensors nor pytorch_model*.bin",
        hint="Give the folder of a Hugging Face checkpoint with --load-dir.",
    )


def _read_index(path: Path) -> dict[str, str]:
    try:
        if path.stat().st_size > _INDEX_LIMIT:
            raise MscvtError(f"{path}: larger than any index")
        index: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MscvtError(f"{path}: can't be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise MscvtError(f"{path}: not valid JSON: {error}") from None
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise MscvtError(f"{path}: has no weight_map from tensor names to file names")
    if strange := [name for name in weight_map if not name.isprintable()]:
        raise MscvtError(f"{path}: {ascii(strange[0])[:100]} is no name of a tensor")
    return weight_map


def _check_index(
    folder: Path, claimed: Mapping[str, str], files: list[Path], tensors: Mapping[str, TensorInfo]
) -> None:
    faults = Faults()
    for name, file in sorted(claimed.items()):
        info = tensors.get(name)
        if info is None:
            faults.add(f"{name} is not in {file}, where the index says it is")
        elif files[info.file].name != Path(file).name:
            faults.add(f"{name} is in {files[info.file].name}, the index says {file}")
    for name in sorted(tensors.keys() - claimed.keys()):
        faults.add(f"{name} is in {files[tensors[name].file].name} and not in the index")
    faults.raise_if_any(f"{folder}: the index and the files contradict each other")


def _read_file(path: Path, number: int) -> dict[str, TensorInfo]:
    if path.suffix == ".safetensors":
        return read_header(path, number)
    if path.suffix != ".bin":
        raise MscvtError(f"{path}: neither .safetensors nor .bin")
    from mscvt.formats.torch_zip.reader import load, tensors_in

    return dict(tensors_in(path, number, load(path), "the file"))
