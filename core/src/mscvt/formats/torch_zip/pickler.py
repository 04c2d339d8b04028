"""Pickles of state dicts whose tensors have no bytes yet: byte for byte what `torch.save` makes of real ones."""

from __future__ import annotations

import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, ClassVar

from mscvt.formats.torch_zip.known import STORAGES
from mscvt.formats.torch_zip.standins import Global
from mscvt.records import dataclass
from mscvt.tensors.info import ITEM_SIZES, TORCH_NAMES

PROTOCOL = 2
"""What `torch.load(weights_only=True)` reads."""
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


_KEY, _PUT = object(), object()
"""In a form: the key of the tensor's storage; the next number for what was just written, which nobody refers to."""
_TUPLES = {0: (b"", pickle.EMPTY_TUPLE), 1: (b"", pickle.TUPLE1), 2: (b"", pickle.TUPLE2), 3: (b"", pickle.TUPLE3)}
"""What stands before and behind so many values."""
_LONG = 256
"""The first number that has four bytes."""
_BATCH = 1000
"""Items of a dict that are set at once."""


_Copy = tuple[bytes, struct.Struct, list[Any]]
"""Of a tensor: what stands before the key, the layout of the rest, and the rest, of which every other is a number."""


def _form(dtype: str, shape: tuple[int, ...]) -> list[Any]:
    """The call that rebuilds a tensor: bytes, names and texts, `_KEY` and `_PUT`, the last one of the tensor."""
    typed = _STORAGES.get(dtype)
    numel = prod(shape) * (1 if typed else ITEM_SIZES[dtype])
    form = [_TENSOR if typed else _TENSOR_OF_DTYPE, pickle.MARK + pickle.MARK, "storage", typed or _UNTYPED]
    form += [_KEY, "cpu", _number(numel) + pickle.TUPLE, _PUT, pickle.BINPERSID + _number(0)]
    extents = [max(size, 1) for size in shape]  # strides of torch are never 0
    for numbers in (shape, [prod(extents[at + 1 :]) for at in range(len(shape))]):
        begin, end = _TUPLES.get(len(numbers), (pickle.MARK, pickle.TUPLE))
        form += [begin + b"".join(map(_number, numbers)) + end, *([_PUT] if numbers else [])]
    form += [pickle.NEWFALSE, OrderedDict, pickle.EMPTY_TUPLE + pickle.REDUCE, _PUT]  # no hooks
    return [*form, *([] if typed else [_DTYPES[dtype]]), pickle.TUPLE, _PUT, pickle.REDUCE, _PUT]


def _number(value: int) -> bytes:
    """A whole number without what begins and ends a pickle."""
    return pickle.dumps(value, PROTOCOL)[2:-1]


class _Pickler(pickle._Pickler):
    """Writes one pickle, and tensors after the first of their dtype and shape by putting their own numbers into a copy.

    That takes 9 us for a tensor and its name, where writing part by part takes 40.
    """

    dispatch: ClassVar[dict[type, Callable[..., None]]] = {**pickle._Pickler.dispatch}
    # what the standard library's pickler has and its type stubs don't say
    get: Callable[[int], bytes]
    memo: dict[int, tuple[int, Any]]
    put: Callable[[int], bytes]
    write: Callable[[bytes], Any]

    def __init__(self, buffer: io.BytesIO) -> None:
        super().__init__(buffer, protocol=PROTOCOL)
        self.write = buffer.write  # only later protocols have frames
        self._numbered = 0
        self._copies: dict[tuple[str, tuple[int, ...]], _Copy] = {}

    def memoize(self, obj: Any) -> None:
        """Give what was just written the next number."""
        self.write(self.put(self._numbered))
        self.memo[id(obj)] = self._numbered, obj
        self._numbered += 1

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        """Write an object, or that it was written; the most are texts and tensors."""
        kind = type(obj)
        if (kind is str or kind is EmptyTensor) and id(obj) not in self.memo:
            self.dispatch[kind](self, obj)
        else:
            super().save(obj, save_persistent_id)  # type: ignore[misc]  # the stubs lack it

    def save_text(self, obj: str) -> None:
        """Write a text."""
        text = obj.encode("utf-8", "surrogatepass")
        self.write(pickle.BINUNICODE + struct.pack("<I", len(text)) + text)
        self.memoize(obj)

    def save_plain_dict(self, obj: dict[Any, Any]) -> None:
        """Write a dict in batches of which the last may be empty, as the standard library's pickler in C does."""
        self.write(pickle.EMPTY_DICT)
        self.memoize(obj)
        items = [*obj.items()]
        for start in range(0, len(items) + 1 if items else 0, _BATCH):
            self.write(pickle.MARK if len(items) > 1 else b"")
            for key, value in items[start : start + _BATCH]:
                self.save(key)
                self.save(value)
            self.write(pickle.SETITEMS if len(items) > 1 else pickle.SETITEM)

    def save_name(self, name: Global) -> None:
        """Write a name."""
        self.write(pickle.GLOBAL + f"{name.module}\n{name.name}\n".encode())
        self.memoize(name)

    def save_tensor(self, tensor: EmptyTensor) -> None:
        """Write the call that rebuilds a tensor."""
        kind, key = (tensor.dtype, tensor.shape), str(tensor.key)
        copy = self._copies.get(kind)
        if copy is None:
            form = _form(*kind)
            self._save_form(form, key)
            if self._numbered >= _LONG:
                self._copies[kind] = self._copy(form)
        else:
            head, layout, rest = copy
            end = self._numbered + len(rest) // 2
            rest[1::2] = range(self._numbered, end)
            self.write(b"%bX%c\0\0\0%b%b" % (head, len(key), key.encode(), layout.pack(*rest)))
            self._numbered = end
        self.memo[id(tensor)] = self._numbered - 1, tensor

    def _save_form(self, form: Sequence[Any], key: str) -> None:
        for part in form:
            if type(part) is bytes:
                self.write(part)
            elif part is _PUT:
                self.write(self.put(self._numbered))
                self._numbered += 1
            else:
                self.save(key if part is _KEY else part)

    def _copy(self, form: Sequence[Any]) -> _Copy:
        """A form all of whose names were written before."""
        head, *runs = self._runs(form)
        rest: list[Any] = [0] * (2 * len(runs) - 1)
        rest[::2] = runs
        return head, struct.Struct("<" + "I".join(f"{len(run)}s" for run in runs)), rest

    def _runs(self, form: Sequence[Any]) -> list[bytes]:
        """What stands before the key, and around each number behind it."""
        runs = [b""]
        for part in form:
            if part is _KEY:
                runs += [pickle.LONG_BINPUT, b""]
            elif part is _PUT:
                runs[-1] += pickle.LONG_BINPUT
                runs.append(b"")
            else:
                runs[-1] += part if type(part) is bytes else self.get(self.memo[id(part)][0])
        return runs


_Pickler.dispatch |= {
    dict: _Pickler.save_plain_dict,
    str: _Pickler.save_text,
    Global: _Pickler.save_name,
    EmptyTensor: _Pickler.save_tensor,
}


def pickled(state: Any) -> bytes:
    """The pickle of a state with `EmptyTensor` in the place of tensors."""
    buffer = io.BytesIO()
    _Pickler(buffer).dump(state)
    return buffer.getvalue()
