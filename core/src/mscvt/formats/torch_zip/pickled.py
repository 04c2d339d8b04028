"""Files that `torch.save` wrote, opened without executing anything in them.

Only `torch.load(weights_only=True)` reads the pickle, onto the meta device, so that no tensor's bytes are
touched, and only after everything that the pickle would call has been looked up in the tables below.
Training runs pickle objects of their own (enums, RNG states) beside the weights; these become inert
`Opaque` objects where they come from a known training library, and are an error otherwise.
"""

from __future__ import annotations

import argparse
import pickle
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from mscvt.errors import MscvtError
from mscvt.formats.torch_zip.archive import globals_in_pickle, record_starts
from mscvt.tensors.info import TORCH_NAMES, TensorInfo

_PLAIN = frozenset(
    {
        "_codecs.encode",
        "builtins.complex",
        "builtins.set",
        "collections.OrderedDict",
        "torch.Size",
        "torch._tensor._rebuild_from_type_v2",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
        "torch.storage.TypedStorage",
        "torch.storage.UntypedStorage",
        "torch.Tensor",
    }
)
"""What weights are pickled with and torch reads by itself; not all that torch allows: `bytearray(10**12)`
is allowed there and fills the memory."""
_INERT_MODULES = frozenset(
    {
        "megatron",
        "mindspeed",
        "mindspeed_llm",
        "transformer_engine",
        "torch_npu",
        "apex",
        "numpy",
        "io",
        "_io",
        "signal",
    }
)
"""Libraries whose objects training runs leave in a checkpoint; none of them is imported or called."""
_DTYPES = {getattr(torch, torch_name): name for name, torch_name in TORCH_NAMES.items()}


class Opaque:
    """Stands for an object of a training library, of which nothing is wanted."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Take and forget whatever the pickle gives."""

    def __setstate__(self, _state: Any) -> None:
        """Take and forget whatever the pickle gives."""


def _default_dict(*_factory: Any) -> OrderedDict[Any, Any]:
    """Stands for `defaultdict`, which torch can't fill and MindSpeed-LLM's converter may write."""
    return OrderedDict()


def _npu_tensor(*args: Any) -> torch.Tensor:
    """Stands for torch_npu's `_rebuild_npu_tensor`, whose bytes are those of a CPU copy.

    The last argument is the format on the device (`_reduce_ex` in torch_npu/utils/storage.py).
    """
    rebuilt: torch.Tensor = torch._utils._rebuild_tensor_v2(*args[:-1])
    return rebuilt


_STAND_INS: dict[str, Any] = {
    "argparse.Namespace": argparse.Namespace,
    "builtins.dict": Opaque,
    "builtins.int": Opaque,
    "builtins.list": Opaque,
    "collections.defaultdict": _default_dict,
    "torch_npu.utils.storage._rebuild_npu_tensor": _npu_tensor,
}


def load_meta(path: Path) -> Any:
    """Everything in a file of torch.save, with tensors on the meta device.

    Raises:
        MscvtError: Where the file is no such file, is damaged, or has code in its pickle.
    """
    allowed = _stand_ins(path, globals_in_pickle(path))
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="meta", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, MemoryError, RecursionError) as error:
        raise MscvtError(f"{path}: can't be read as a file of torch.save: {_first_line(error)}") from None
    except Exception as error:  # a damaged pickle can make torch's reader fail in any way
        raise MscvtError(
            f"{path}: damaged, torch.load fails with {type(error).__name__}: {_first_line(error)}"
        ) from None


def _stand_ins(path: Path, found: set[str]) -> list[Any]:
    """What torch is to take for the names in a pickle that it doesn't know itself."""
    foreign = {name for name in found - _PLAIN if not _is_dtype_or_storage(name)}
    refused = sorted(n for n in foreign if n not in _STAND_INS and n.partition(".")[0] not in _INERT_MODULES)
    if refused:
        raise MscvtError(
            f"{path}: its pickle holds code or objects that are not weights: {', '.join(refused[:20])}",
            hint="Nothing of it was run. Use only files from a source you trust, or safetensors.",
        )
    return [(_STAND_INS.get(name, Opaque), name) for name in sorted(foreign)]


def _is_dtype_or_storage(name: str) -> bool:
    module, _, last = name.rpartition(".")
    if module != "torch":
        return False
    return last.endswith("Storage") or isinstance(getattr(torch, last, None), torch.dtype)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def tensors_in(path: Path, number: int, state: Any, where: str) -> Iterator[tuple[str, TensorInfo]]:
    """Yield name and place of every tensor of a state dict that `load_meta` gave.

    Raises:
        MscvtError: Where it is no dict of tensors, or a tensor lies outside of the file or is not contiguous.
    """
    if not isinstance(state, dict):
        raise MscvtError(f"{path}: {where} is {type(state).__name__}, expected a dict of tensors")
    starts = record_starts(path)
    for name, value in state.items():
        if not isinstance(name, str) or not name.isprintable():
            shown = ascii(name) if isinstance(name, str) else type(name).__name__
            raise MscvtError(f"{path}: {where} has a key that is no name: {shown[:100]}")
        if not isinstance(value, torch.Tensor):
            if name.endswith("_extra_state"):
                continue
            raise MscvtError(f"{path}: {name!r} in {where} is {type(value).__name__}, expected a tensor")
        yield name, _info(path, number, name, value, starts)


def _info(path: Path, number: int, name: str, tensor: torch.Tensor, starts: Sequence[int]) -> TensorInfo:
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
    following = bisect_right(starts, start)
    end = starts[following] if following < len(starts) else 0
    if info.numel and not start <= info.offset < info.offset + info.nbytes <= end:
        raise MscvtError(f"{path}: tensor {name!r} lies outside of its record in the file")
    return info
