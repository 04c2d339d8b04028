"""Tensors behind their names, in the words in which `torch.save` writes nearly all, each read at once.

The unpickler takes such a tensor opcode by opcode, of which it has forty. Here it gives the same objects, remembered
under the same numbers, and counts as much work. Whatever is not exactly so is left to the unpickler.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable, Sequence
from functools import partial
from operator import is_
from typing import TYPE_CHECKING, Any

from mscvt.formats.torch_zip.known import reach
from mscvt.formats.torch_zip.opcodes import COSTS
from mscvt.formats.torch_zip.standins import Global, Storage, StoredTensor

if TYPE_CHECKING:
    from mscvt.formats.torch_zip.unpickler import Unpickler

_NUMBER = rb"(?:K.|M..|J.{4})"
_PARTS = {b"get": rb"(?:h.|j.{4})", b"number": _NUMBER, b"tuple": rb"%b{1,3}[\x85-\x87]" % _NUMBER, b"put": rb"r(.{4})"}
_TENSOR = re.compile(
    rb"%(put)b(%(get)b\(\(%(get)b%(get)b)X(.)\0\0\0([0-9]{1,20})%(put)b(%(get)b%(number)bt)%(put)b"  # of the storage
    rb"(Q%(number)b%(tuple)b)%(put)b(%(tuple)b)%(put)b"  # offset and shape, strides
    rb"([\x88\x89]%(get)b\)R)%(put)b(%(get)b?t)%(put)bR%(put)b" % _PARTS,  # requires_grad and hooks, perhaps a dtype
    re.DOTALL,
)
"""What follows on a name: the storage's key, eight numbers to be remembered under, and between them the words of a
form. There is one way at the most to match it, as opcodes differ in their first byte."""
_OTHER_OPCODES = 10
"""Those that are not in the form: the key, the last call, and what remembers."""
_CALLS_WORK = 16
"""What calling two functions counts beside their opcodes."""
_OPCODE = re.compile(rb"[hK].|M..|[jJ].{4}|.", re.DOTALL)
_GETS, _NUMBERS = pickle.BINGET + pickle.LONG_BINGET, pickle.BININT1 + pickle.BININT2 + pickle.BININT
_TUPLES = {1: pickle.TUPLE1, 2: pickle.TUPLE2, 3: pickle.TUPLE3}
_PUTS, _NUMBERED = 8, struct.Struct("<8I")
_LARGEST_PUT = 1 << 31


class _Form:
    """Words in which tensors are written that differ in their names and storages alone."""

    def __init__(self, words: Sequence[bytes]) -> None:
        parts = [_OPCODE.findall(part) for part in words]
        begin, device, sizes, strides, hooks, end = parts
        self.work = _OTHER_OPCODES + sum(COSTS.get(opcode[:1], 1) for part in parts for opcode in part)
        self.remembered = _values([*begin, *device, *hooks, *end], _GETS)
        (self.numel,) = _values(device, _NUMBERS)
        self.offset, *shape = _values(sizes, _NUMBERS)
        self.shape, self.strides = tuple(shape), tuple(_values(strides, _NUMBERS))
        self.is_whole = (sizes[-1], strides[-1]) == (_TUPLES[len(self.shape)], _TUPLES[len(self.strides)])
        self.requires_grad = hooks[0] == pickle.NEWTRUE
        self.objects: Sequence[Any] = ()
        """What a tensor was made of: function, the text `storage`, its class, device, class of hooks, perhaps dtype."""
        self._like: StoredTensor | None = None
        """That tensor, if of these objects and another storage another one is made in the same way."""
        self._needed = self._skipped = 0
        """Bytes that the storage has to have, and of those before the tensor."""

    def named(self, objects: Sequence[Any], key: str) -> tuple[Any, ...]:
        """The persistent id of a tensor's storage."""
        return objects[1], objects[2], key, objects[3], self.numel

    def arguments(self, objects: Sequence[Any], storage: Storage, hooks: Any) -> tuple[Any, ...]:
        """What the function is called with."""
        return storage, self.offset, self.shape, self.strides, self.requires_grad, hooks, *objects[5:]

    def values(
        self, objects: Sequence[Any], name: str, key: str, storage: Storage, hooks: Any, tensor: Any
    ) -> tuple[Any, ...]:
        """What is remembered of a tensor, in this order."""
        arguments = self.arguments(objects, storage, hooks)
        return name, key, self.named(objects, key), self.shape, self.strides, hooks, arguments, tensor

    def make(self, u: Unpickler, objects: Sequence[Any], storage: Storage) -> tuple[Any, Any]:
        """The hooks and the tensor, made by calls; and how others of these objects are made."""
        hooks = u.make(objects[4], ())
        tensor = u.make(objects[0], self.arguments(objects, storage, hooks))
        is_fixed = all(type(each) is Global for each in objects[5:])  # a dict could be filled meanwhile
        if type(tensor) is StoredTensor and type(hooks) is dict and is_fixed:
            self.objects, self._like = objects, tensor
            self._needed = reach(tensor.dtype, self.offset, self.shape, self.strides)
            self._skipped = tensor.offset - storage.start
        return hooks, tensor

    def copy(self, objects: Sequence[Any], storage: Storage) -> StoredTensor | None:
        """What calls would make, if it is known from another tensor; its hooks are an empty dict."""
        like = self._like
        if like is None or storage.record.size < self._needed or not all(map(is_, objects, self.objects)):
            return None
        if storage.kind != like.storage.kind:
            return None
        return StoredTensor(like.dtype, self.shape, self.strides, storage.start + self._skipped, storage)


def _values(opcodes: Sequence[bytes], codes: bytes) -> list[int]:
    """The numbers behind opcodes of some kinds."""
    return [
        int.from_bytes(opcode[1:], "little", signed=opcode[:1] == pickle.BININT)
        for opcode in opcodes
        if opcode[:1] in codes
    ]


class Memo(dict[int, Any]):
    """What a pickle remembers; of tensors, what they were made of is put together when it is asked for.

    Attributes:
        end: Larger than all numbers so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.end = 0
        self._tensors: dict[int, tuple[_Form, Sequence[Any], str, str, StoredTensor]] = {}

    def put(self, number: int, value: Any) -> None:
        """Remember what is no tensor."""
        self[number] = value
        if number >= self.end:
            self.end = number + 1

    def __missing__(self, number: int) -> Any:
        for first in range(number, number - _PUTS, -1):
            if first in self._tensors:
                self._put_together(first)
                return self[number]
        raise KeyError(number)

    def add(self, first: int, form: _Form, objects: Sequence[Any], name: str, key: str, tensor: StoredTensor) -> None:
        """Remember a tensor and what it was made of under numbers that are all free."""
        self._tensors[first] = form, objects, name, key, tensor
        self.end = first + _PUTS

    def put_together(self) -> None:
        """Put together what all tensors were made of."""
        for first in [*self._tensors]:
            self._put_together(first)

    def _put_together(self, first: int) -> None:
        form, objects, name, key, tensor = self._tensors.pop(first)
        for number, value in enumerate(form.values(objects, name, key, tensor.storage, {}, tensor), first):
            self.setdefault(number, value)  # it may have been replaced meanwhile


class SavedTensors:
    """The tensors of one pickle."""

    def __init__(self, data: bytes) -> None:
        self.at: Callable[[int], re.Match[bytes] | None] = partial(_TENSOR.match, data)
        """Finds what looks like a tensor behind a name that ends there."""
        self._forms: dict[Sequence[bytes], _Form] = {}

    def read(self, u: Unpickler, found: re.Match[bytes]) -> None:
        """Read what looks like a tensor, and go on behind it; do nothing where it is not written exactly as most are.

        Args:
            u: The unpickler, which has the name on its stack, and goes on behind it.
            found: What `at` found there.

        Raises:
            MscvtError: What is wrong with the tensor.
        """
        put, begin, length, digits, put1, device, put2, sizes, put3, strides, put4, hook, put5, end, put6, put7 = (
            found.groups()
        )
        words = begin, device, sizes, strides, hook, end
        form = self._forms.get(words)
        if form is None:
            form = self._forms[words] = _Form(words)
        first, memo = int.from_bytes(put, "little"), u.memo
        if (
            length[0] != len(digits)
            or not form.is_whole
            or not memo.end <= first < _LARGEST_PUT
            or b"".join((put, put1, put2, put3, put4, put5, put6, put7))
            != _NUMBERED.pack(first, first + 1, first + 2, first + 3, first + 4, first + 5, first + 6, first + 7)
            or u.work_left < form.work + _CALLS_WORK
        ):
            return
        try:
            objects = [memo[number] for number in form.remembered]
        except KeyError:
            return
        name, key = u.stack[-1], digits.decode()
        u.work_left -= form.work
        storage = u.persistent_load(form.named(objects, key))
        tensor = form.copy(objects, storage)
        if tensor is not None:
            u.work_left -= _CALLS_WORK
            memo.add(first, form, form.objects, name, key, tensor)
            u.append(tensor)
        else:
            hooks, made = form.make(u, objects, storage)
            for number, value in enumerate(form.values(objects, name, key, storage, hooks, made), first):
                memo.put(number, value)
            u.append(made)
        u.seek(found.end())
