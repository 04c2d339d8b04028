"""Opcodes of pickles whose work is to be bounded, or that would reach out of the pickle.

Those that are not here are the standard library's: they push plain values of the pickle's own bytes, and move what is
on the stack.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mscvt.errors import MscvtError
from mscvt.formats.torch_zip.standins import Recorded, StoredTensor

if TYPE_CHECKING:
    from mscvt.formats.torch_zip.unpickler import Unpickler

_NUMBER_BYTES = 255
"""The longest number in a pickle; those of weights have 8."""


def _reduce(u: Unpickler) -> None:
    arguments, function = u.stack.pop(), u.stack.pop()
    u.append(u.make(function, arguments))


def _new_object_with_names(u: Unpickler) -> None:
    u.stack.pop()
    _reduce(u)


def _instance(u: Unpickler) -> None:
    module, name = u.readline()[:-1].decode("ascii"), u.readline()[:-1].decode("ascii")
    arguments = u.pop_mark()
    u.append(u.make(u.find_class(module, name), tuple(arguments)))


def _object(u: Unpickler) -> None:
    function, *arguments = u.pop_mark()
    u.append(u.make(function, tuple(arguments)))


def _frame(u: Unpickler) -> None:
    u.read(8)  # only says how many bytes to fetch at once


def _extension(_u: Unpickler) -> None:
    raise MscvtError("its pickle refers to an extension of the process that saved it")


def _text_persistent(_u: Unpickler) -> None:
    raise MscvtError(
        "its pickle has protocol 0, which can't hold tensors", hint="Save it again without pickle_protocol=0."
    )


def _build(u: Unpickler) -> None:
    state, target = u.stack.pop(), u.stack[-1]
    if type(target) is Recorded:
        target.state = state
    elif type(target) not in (dict, StoredTensor):  # attributes of an OrderedDict or a tensor are not wanted
        raise MscvtError(f"its pickle is damaged: it sets attributes of {type(target).__name__}")


def _set_item(u: Unpickler) -> None:
    value, key = u.stack.pop(), u.stack.pop()
    u.set_item(u.stack[-1], key, value)


def _set_items(u: Unpickler) -> None:
    items = u.pop_mark()
    u.set_items(u.stack[-1], items)


def _dict(u: Unpickler) -> None:
    items = u.pop_mark()
    made: dict[Any, Any] = {}
    u.set_items(made, items)
    u.append(made)


def _append(u: Unpickler) -> None:
    item = u.stack.pop()
    _extend(u.stack[-1], [item])


def _appends(u: Unpickler) -> None:
    items = u.pop_mark()
    _extend(u.stack[-1], items)


def _extend(target: Any, items: list[Any]) -> None:
    if type(target) is list:
        target += items
    elif type(target) is not Recorded:
        raise MscvtError("its pickle is damaged: it appends to what is no list")


def _add_items(u: Unpickler) -> None:
    items = u.pop_mark()
    u.add_items(u.stack[-1], items)


def _frozenset(u: Unpickler) -> None:
    items = u.pop_mark()
    made: set[Any] = set()
    u.add_items(made, items)
    u.append(frozenset(made))


def _bytearray(u: Unpickler) -> None:
    length = int.from_bytes(u.read(8), "little")
    u.append(bytearray(u.read(min(length, 1 << 62))))  # made from what is there; the standard library makes room first


def _int(u: Unpickler) -> None:
    text = _short_line(u)
    u.append(text == b"01" if text in (b"00", b"01") else int(text, 0))


def _long(u: Unpickler) -> None:
    u.append(int(_short_line(u).rstrip(b"L"), 0))


def _put(u: Unpickler) -> None:
    u.memo.put(int(_short_line(u)), u.stack[-1])


def _put_short(u: Unpickler) -> None:
    u.memo.put(u.read(1)[0], u.stack[-1])


def _put_long(u: Unpickler) -> None:
    u.memo.put(int.from_bytes(u.read(4), "little"), u.stack[-1])


def _get(u: Unpickler) -> None:
    u.append(u.memo[int(_short_line(u))])


def _text(u: Unpickler) -> None:
    u.append(str(u.read(int.from_bytes(u.read(4), "little")), "utf-8", "surrogatepass"))
    if found := u.saved.at(u.tell()):
        u.saved.read(u, found)


def _memoize(u: Unpickler) -> None:
    u.memo.put_together()  # the next number is how many there are
    u.memo.put(len(u.memo), u.stack[-1])


def _short_line(u: Unpickler) -> bytes:
    """A number's digits; to read thousands of them takes time that grows with the square of their count."""
    line = u.readline()[:-1]
    if len(line) > _NUMBER_BYTES:
        raise MscvtError(f"its pickle has a number of {len(line):,} digits")
    return line


def _long4(u: Unpickler) -> None:
    length = int.from_bytes(u.read(4), "little")
    if length > _NUMBER_BYTES:
        raise MscvtError(f"its pickle has a number of {length:,} bytes")
    u.append(int.from_bytes(u.read(length), "little", signed=True))


COSTS: Mapping[bytes, int] = {bytes([code]): 4 for code in b"}]\x8f(tdl\x85\x86\x87\x91"}
"""What an opcode counts that makes a container: an empty dict is 64 bytes from one byte of pickle. Others count 1."""
_OWN: Mapping[bytes, Callable[[Unpickler], None]] = {
    pickle.ADDITEMS: _add_items,
    pickle.APPEND: _append,
    pickle.APPENDS: _appends,
    pickle.BINPUT: _put_short,
    pickle.BINUNICODE: _text,
    pickle.BUILD: _build,
    pickle.BYTEARRAY8: _bytearray,
    pickle.DICT: _dict,
    pickle.EXT1: _extension,
    pickle.EXT2: _extension,
    pickle.EXT4: _extension,
    pickle.FRAME: _frame,
    pickle.FROZENSET: _frozenset,
    pickle.GET: _get,
    pickle.INST: _instance,
    pickle.INT: _int,
    pickle.LONG: _long,
    pickle.LONG4: _long4,
    pickle.LONG_BINPUT: _put_long,
    pickle.MEMOIZE: _memoize,
    pickle.NEWOBJ: _reduce,
    pickle.NEWOBJ_EX: _new_object_with_names,
    pickle.OBJ: _object,
    pickle.PERSID: _text_persistent,
    pickle.PUT: _put,
    pickle.REDUCE: _reduce,
    pickle.SETITEM: _set_item,
    pickle.SETITEMS: _set_items,
}
_STANDARD: Mapping[int, Any] = pickle._Unpickler.dispatch
HANDLERS: Mapping[bytes, Callable[[Unpickler], None]] = {
    **{bytes([code]): handler for code, handler in _STANDARD.items()},
    **_OWN,
}
"""Opcode -> what to do for it."""
