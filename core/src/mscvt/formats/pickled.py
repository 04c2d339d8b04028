"""Files that `torch.save` wrote, opened without executing anything in them.

Only `torch.load(weights_only=True)` reads the pickle, onto the meta device, so that no tensor's bytes are
touched. Training runs pickle objects of their own (enums, RNG states) beside the weights; these become
inert `Opaque` objects where they come from a known training library, and are an error otherwise.
"""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from mscvt.errors import MscvtError
from mscvt.tensors import TORCH_NAMES, TensorInfo

_INERT_MODULES = frozenset(
    {"megatron", "mindspeed", "mindspeed_llm", "transformer_engine", "apex", "numpy", "io", "_io", "signal"}
)
"""Libraries whose objects training runs leave in a checkpoint; none of them is imported or called."""
_ALLOWED = frozenset({"argparse.Namespace"})
_PICKLE_LIMIT = 1 << 30
"""Bytes; the pickle describes tensors and does not hold them."""
_DTYPES = {getattr(torch, torch_name): name for name, torch_name in TORCH_NAMES.items()}


class Opaque:
    """Stands for an object of a training library, of which nothing is wanted."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Take and forget whatever the pickle gives."""

    def __setstate__(self, _state: Any) -> None:
        """Take and forget whatever the pickle gives."""


def load_meta(path: Path) -> Any:
    """Everything in a file of torch.save, with tensors on the meta device.

    Raises:
        MscvtError: Where the file is no such file, is damaged, or has code in its pickle.
    """
    _check_archive(path)
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        foreign = sorted(set(unsafe) - _ALLOWED)
        if refused := [name for name in foreign if name.partition(".")[0] not in _INERT_MODULES]:
            raise MscvtError(
                f"{path}: its pickle holds code or objects that are not weights: {', '.join(refused)}",
                hint="Nothing of it was run. Use only files from a source you trust, or safetensors.",
            )
        allowed: list[Any] = [argparse.Namespace, *((Opaque, name) for name in foreign)]
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="meta", weights_only=True)
    except MscvtError:
        raise
    except (pickle.UnpicklingError, RuntimeError, OSError, MemoryError, RecursionError) as error:
        raise MscvtError(f"{path}: can't be read as a file of torch.save: {_first_line(error)}") from None
    except Exception as error:  # a damaged pickle can make torch's reader fail in any way
        raise MscvtError(
            f"{path}: damaged, torch.load fails with {type(error).__name__}: {_first_line(error)}"
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _check_archive(path: Path) -> None:
    """Refuse what would make the reader blow up: old formats, compressed records, records beyond the file."""
    try:
        size = path.stat().st_size
        if not zipfile.is_zipfile(path):
            raise MscvtError(
                f"{path}: not a zip file of torch.save (truncated, or of the format before torch 1.6)",
                hint="Download it again, or load it with an old torch and save it anew.",
            )
        with zipfile.ZipFile(path) as archive:
            for record in archive.infolist():
                if record.compress_type != zipfile.ZIP_STORED or record.file_size > size:
                    raise MscvtError(f"{path}: its record {record.filename!r} is compressed or larger than the file")
                if record.filename.endswith("/data.pkl") and record.file_size > _PICKLE_LIMIT:
                    raise MscvtError(f"{path}: its pickle has {record.file_size} bytes, more than any checkpoint's")
    except OSError as error:
        raise MscvtError(f"{path}: can't be read: {error}") from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise MscvtError(f"{path}: damaged zip file: {error}") from None


def tensors_in(path: Path, number: int, state: Any, where: str) -> Iterator[tuple[str, TensorInfo]]:
    """Yield name and place of every tensor of a state dict that `load_meta` gave.

    Raises:
        MscvtError: Where it is no dict of tensors, or a tensor lies outside of the file or is not contiguous.
    """
    if not isinstance(state, dict):
        raise MscvtError(f"{path}: {where} is {type(state).__name__}, expected a dict of tensors")
    size = path.stat().st_size
    for name, value in state.items():
        if not isinstance(name, str):
            raise MscvtError(f"{path}: {where} has a key that is no name: {name!r}")
        if not isinstance(value, torch.Tensor):
            if name.endswith("_extra_state"):
                continue
            raise MscvtError(f"{path}: {name!r} in {where} is {type(value).__name__}, expected a tensor")
        yield name, _info(path, number, name, value, size)


def _info(path: Path, number: int, name: str, tensor: torch.Tensor, size: int) -> TensorInfo:
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None or tensor.layout is not torch.strided:
        raise MscvtError(
            f"{path}: tensor {name!r} is {tensor.dtype}, {tensor.layout}; known are {', '.join(TORCH_NAMES)}"
        )
    if not tensor.is_contiguous():
        raise MscvtError(
            f"{path}: tensor {name!r} is a view with strides {tensor.stride()}",
            hint="Save it again with .contiguous(), or as safetensors.",
        )
    start: Any = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    if start is None:
        if tensor.numel():
            raise MscvtError(f"{path}: tensor {name!r} has no bytes in the file")
        start = 0
    info = TensorInfo(dtype, tuple(tensor.shape), number, start + int(tensor.storage_offset()) * tensor.element_size())
    if info.offset < 0 or info.offset + info.nbytes > size:
        raise MscvtError(f"{path}: tensor {name!r} lies outside of the file")
    return info
