"""Pickles that the standard library's unpickler in C may read: those that can't misuse it, ten times as fast.

It hashes whatever is to be a key, makes room for the largest number that an object is remembered under, and does not
count. So a pickle is looked through first, opcode by opcode, by a regular expression: there may be none but those that
push and drop plain values, number what they remember one by one, and make containers and objects, of which there may be
no more than a checkpoint has. What would make or fill a dict is put into words that do so with a list.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
from collections.abc import Collection
from functools import cache
from typing import Any

from mscvt.formats.torch_zip.standins import Global, Pairs, Recorded

_RUN = re.compile(
    rb"(?:[(0N\x88\x89)\]ae\x85\x86\x87t\x93\x94R\x81b]+|[Kh].|M..|[Jj].{4}|G.{8}|\x8a(?:"
    + b"|".join(rb"\x%02x.{%d}" % (length, length) for length in range(10))
    + rb")|\x8c(?:"
    + b"|".join(rb"\x%02x.{%d}" % (length, length) for length in range(256))
    + rb")){0,1000}([}us]?)",
    re.DOTALL,
)
"""Opcodes that stay as they are, with what belongs to each, and one of a dict behind them."""
_WORDS = {b"}": b")Q", b"u": b"e", b"s": b"\x86b"}
"""For an empty dict a list is asked of us by a persistent id; items are appended to it, a pair is set as its state."""
_TEXT_AT = 5
"""Where a long text begins in what its opcode begins with: behind its length."""
_FRAME_BYTES = 9
_CONTAINERS = b"}])\x81\x85\x86\x87tR"
_MOST_ARGUMENTS = 64
_FEW_CONTAINERS, _BYTES_FOR_ONE, _MOST_CONTAINERS = 1_000_000, 4, 25_000_000
"""How many containers there may be in any case, in so many bytes of a longer pickle, and at the most."""


def unpickle_natively(data: bytes, allowed: Collection[str]) -> Any:
    """What a pickle says, with stand-ins for whatever is not plain.

    Args:
        data: The pickle.
        allowed: The full names that it may hold, all of classes, dtypes or `torch.Size`.

    Returns:
        As `unpickle` does, or None: it is for the other reader, which says what is wrong if anything is.
    """
    words = _translated(data)
    if words is None:
        return None
    try:
        return _Unpickler(words, allowed).load()
    except Exception:  # whatever it is, the other reader has words for it
        return None


def _translated(data: bytes) -> bytes | None:
    containers = sum(data.count(code) for code in _CONTAINERS)
    if containers > min(_FEW_CONTAINERS + len(data) // _BYTES_FOR_ONE, _MOST_CONTAINERS) or data[:1] != pickle.PROTO:
        return None
    pieces: list[bytes] = []
    at, match = 2, _RUN.match
    while True:
        found = match(data, at)
        end = found.end() if found else at
        if found and (word := found[1]):
            pieces.append(data[at : end - 1])
            pieces.append(_WORDS[word])
        elif end > at:
            pieces.append(data[at:end])
        elif (code := data[at : at + 1]) == pickle.BINUNICODE:
            end = at + _TEXT_AT + int.from_bytes(data[at + 1 : at + _TEXT_AT], "little")
            pieces.append(data[at:end])
        elif code == pickle.FRAME:
            end = at + _FRAME_BYTES
        elif code == pickle.STOP:
            break
        else:
            return None
        at = end
    body = b"".join((*pieces, pickle.STOP))
    return b"".join((pickle.PROTO, b"\x04", pickle.FRAME, struct.pack("<Q", len(body)), body))


class _Object(Recorded):
    """An object of a class that a subclass stands for."""

    __slots__ = ()

    def __init__(self, *arguments: Any) -> None:
        """Leave all as it is: most objects are not made by a call. Each call copies its arguments."""
        if len(arguments) > _MOST_ARGUMENTS:
            raise ValueError(len(arguments))

    def __getattr__(self, _unset: str) -> None:
        return None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Name(Global):
    """A name that stays what it is: a frozen dataclass with slots would let a pickle set its fields."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise TypeError(state)


class _Unpickler(pickle.Unpickler):
    """Reads a pickle that was put into our words."""

    persistent_load = Pairs  # called with nothing to fill it

    def __init__(self, words: bytes, allowed: Collection[str]) -> None:
        super().__init__(io.BytesIO(words))
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name."""
        full = f"{module}.{name}"
        if full not in self._allowed:
            raise ValueError(full)
        return _stand_in(module, name)


@cache
def _stand_in(module: str, name: str) -> Any:
    """A dtype's name as a name, for the rest something to call."""
    full = f"{module}.{name}"
    if full == "torch.Size":
        return ().__add__  # gives a tuple as it is, and refuses whatever is none
    return _Name(module, name) if module == "torch" else type("_Named", (_Object,), {"__slots__": (), "kind": full})
