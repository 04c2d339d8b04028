"""Pickles of what is not here: tensors that have no bytes yet, objects whose classes are in modules of others.

Those of state dicts are byte for byte what `torch.save` makes of real tensors.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, ClassVar

from mscvt.formats.torch_zip.known import STORAGES
from mscvt.formats.torch_zip.standins import Global
from mscvt.records import dataclass
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


class _Pickler(pickle._Pickler):
    dispatch: ClassVar[dict[type, Callable[..., None]]] = {**pickle._Pickler.dispatch}


def _save_name(pickler: Any, name: Global) -> None:
    pickler.write(pickle.GLOBAL + f"{name.module}\n{name.name}\n".encode())
    pickler.memoize(name)


def _save_tensor(pickler: Any, tensor: EmptyTensor) -> None:
    """Write the call that rebuilds a tensor, part by part: a fifth of what handing over its arguments takes."""
    save, write, memoize = pickler.save, pickler.write, pickler.memoize
    typed = _STORAGES.get(tensor.dtype)
    save(_TENSOR_OF_DTYPE if typed is None else _TENSOR)
    write(pickle.MARK + pickle.MARK)
    save("storage")
    save(typed or _UNTYPED)
    save(str(tensor.key))
    save("cpu")
    write(_number(tensor.nbytes if typed is None else prod(tensor.shape)) + pickle.TUPLE)
    memoize(_Remembered())
    write(pickle.BINPERSID + _number(0))
    strides = [prod(tensor.shape[at + 1 :]) for at in range(len(tensor.shape))]
    for numbers in (tensor.shape, strides):
        begin, end = _TUPLES.get(len(numbers), (pickle.MARK, pickle.TUPLE))
        write(begin + b"".join(map(_number, numbers)) + end)
        if numbers:
            memoize(_Remembered())
    write(pickle.NEWFALSE)
    save(OrderedDict)  # of hooks, without any
    write(pickle.EMPTY_TUPLE + pickle.REDUCE)
    memoize(_Remembered())
    if typed is None:
        save(_DTYPES[tensor.dtype])
    write(pickle.TUPLE)
    memoize(_Remembered())
    write(pickle.REDUCE)
    memoize(tensor)


_TUPLES = {0: (b"", pickle.EMPTY_TUPLE), 1: (b"", pickle.TUPLE1), 2: (b"", pickle.TUPLE2), 3: (b"", pickle.TUPLE3)}
"""What stands before and behind so many values."""


class _Remembered:
    """Something that a pickle numbers, and nothing refers to."""


def _number(value: int) -> bytes:
    """A whole number without what begins and ends a pickle."""
    return pickle.dumps(value, PROTOCOL)[2:-1]


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
