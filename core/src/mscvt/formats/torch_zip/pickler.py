"""Pickles of what is not here: tensors that have no bytes yet, objects whose classes are in modules of others.

Those of state dicts are byte for byte what `torch.save` makes of real tensors.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from mscvt.formats.torch_zip.known import STORAGES
from mscvt.formats.torch_zip.standins import Global
from mscvt.tensors.info import ITEM_SIZES, TORCH_NAMES

PROTOCOL = 2
"""What `torch.load(weights_only=True)` reads."""
_PROTOCOL_OF_OBJECTS = 4
"""The first that gives what it remembers the next number."""
_STORAGES = {dtype: Global("torch", kind) for kind, dtype in STORAGES.items() if kind != "UntypedStorage"}
_UNTYPED = Global("torch.storage", "UntypedStorage")
_DTYPES = {name: Global("torch", torch_name) for name, torch_name in TORCH_NAMES.items()}
_TENSOR = Global("torch._utils", "_rebuild_tensor_v2")
_TENSOR_OF_DTYPE = Global("torch._utils", "_rebuild_tensor_v3")
"""For dtypes that have no class of storages."""


@dataclass(frozen=True, slots=True)
class EmptyTensor:
    """A contiguous tensor with a storage of its own, to be filled later."""

    dtype: str
    """safetensors' name."""
    shape: tuple[int, ...]
    key: int
    """The number of its storage in the file."""

    @property
    def nbytes(self) -> int:
        """Bytes of its storage."""
        return prod(self.shape) * ITEM_SIZES[self.dtype]


@dataclass(frozen=True, slots=True)
class _EmptyStorage:
    tensor: EmptyTensor


class _Pickler(pickle._Pickler):
    dispatch: ClassVar[dict[type, Callable[..., None]]] = {**pickle._Pickler.dispatch}

    def persistent_id(self, obj: Any) -> tuple[Any, ...] | None:
        """How tensors refer to the bytes of a record."""
        if not isinstance(obj, _EmptyStorage):
            return None
        tensor = obj.tensor
        typed = _STORAGES.get(tensor.dtype)
        count = tensor.nbytes if typed is None else prod(tensor.shape)
        return "storage", typed or _UNTYPED, str(tensor.key), "cpu", count


def _save_name(pickler: Any, name: Global) -> None:
    pickler.write(pickle.GLOBAL + f"{name.module}\n{name.name}\n".encode())
    pickler.memoize(name)


def _save_tensor(pickler: Any, tensor: EmptyTensor) -> None:
    strides = tuple(prod(tensor.shape[at + 1 :]) for at in range(len(tensor.shape)))
    hooks: OrderedDict[Any, Any] = OrderedDict()
    is_typed = tensor.dtype in _STORAGES
    arguments: tuple[Any, ...] = (_EmptyStorage(tensor), 0, (*tensor.shape,), strides, False, hooks)
    pickler.save(_TENSOR if is_typed else _TENSOR_OF_DTYPE)
    pickler.save(arguments if is_typed else (*arguments, _DTYPES[tensor.dtype]))
    pickler.write(pickle.REDUCE)
    pickler.memoize(tensor)


_Pickler.dispatch |= {Global: _save_name, EmptyTensor: _save_tensor}


def pickled(state: Any) -> bytes:
    """The pickle of a state with `EmptyTensor` in the place of tensors."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=PROTOCOL).dump(state)
    return buffer.getvalue()


def pickled_by_name(state: Any, names: Mapping[Any, str]) -> bytes:
    """The pickle of a state in which some objects stand for names, so that nothing has to be imported for them.

    The standard library's pickler in C writes a class only if it finds it under its name. But first it looks at what it
    remembers to have written, so that all names are written beforehand. Its twin above takes five times as long.

    Args:
        state: Anything that can be pickled.
        names: What stands for a name (classes of objects in the state among them), and the full name.
    """
    said = bytearray()
    for name in names.values():
        for text in map(str.encode, name.rpartition(".")[::2]):
            said += pickle.SHORT_BINUNICODE + bytes([len(text)]) + text
        said += pickle.STACK_GLOBAL + pickle.MEMOIZE + pickle.POP
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, _PROTOCOL_OF_OBJECTS)
    pickler.memo = {id(stand_in): (number, stand_in) for number, stand_in in enumerate(names)}
    pickler.dump(state)
    pickle_of_state = buffer.getvalue()
    start = len(pickle.PROTO) + 1
    return pickle_of_state[:start] + said + pickle_of_state[start:]
