"""Reading a pickle as data: nothing in it is looked up, imported or called, and its work is bounded.

The opcodes are those of the standard library's own unpickler in Python; its twin in C won't do, but for the pickles of
`native.py`, since it makes room for the largest number that an object is remembered under, hashes whatever is to be a
key, and does not count.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from mscvt.errors import MscvtError
from mscvt.formats.torch_zip.known import KNOWN, is_harmful
from mscvt.formats.torch_zip.opcodes import COSTS, HANDLERS
from mscvt.formats.torch_zip.saved_tensors import Memo, SavedTensors
from mscvt.formats.torch_zip.standins import Global, Recorded, Storage, StoredTensor

WORK = 4_000_000
"""Steps: as many as 60,000 tensors take, some seconds."""
_STEPS = {code: (COSTS.get(code, 1), handler) for code, handler in HANDLERS.items() if code != pickle.STOP}
"""Opcode -> what it counts, and what to do for it."""
_OBJECT_WORK = 8
_TUPLE_KEY_WORK = 1000
"""Many different tuples can be made to have one hash, and are then compared each with each."""
_KEY_LENGTH = 1 << 16
_KEY_ITEMS = 1000
_LARGEST_KEY = (1 << 61) - 1
"""Whole numbers below are their own hash, larger ones could be made to share one."""
_NAME_LENGTH = 1000
_PLAIN_KEYS = (float, bool, type(None), Global, Recorded, Storage, StoredTensor)
_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""Modules that protocols below 3 know by their names in Python 2."""


class Unpickler(pickle._Unpickler):
    """Interprets one pickle, once, and counts its work."""

    # what the standard library's unpickler has and its type stubs don't say
    append: Callable[[Any], None]
    memo: Memo
    persistent_load: Callable[[Any], Storage]  # type: ignore[assignment]  # a method there
    metastack: list[list[Any]]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]
    stack: list[Any]

    def __init__(
        self,
        data: bytes,
        storage_of: Callable[[Any], Storage],
        work: int = WORK,
        allowed: Collection[str] | None = None,
    ) -> None:
        """Prepare to read a pickle.

        Args:
            data: The pickle.
            storage_of: Gives a storage by the persistent id that tensors name it by.
            work: How many steps it may take.
            allowed: The full names that it may hold; None: all but those that are there to do harm.
        """
        stream = io.BytesIO(data)
        super().__init__(stream, encoding="utf-8")
        self.read, self.readline, self.tell, self.seek = stream.read, stream.readline, stream.tell, stream.seek
        self.saved, self.memo = SavedTensors(data), Memo()
        self.stack, self.metastack = [], []
        self.append = self.stack.append
        self.persistent_load = storage_of
        self._copies_left = 2 * len(data)
        self.work_left = work
        self._allowed = allowed

    def load(self) -> Any:
        """What the pickle says.

        Raises:
            MscvtError: Where it ends before its end, or takes too much work.
        """
        read, steps = self.read, _STEPS
        while found := steps.get(code := read(1)):
            cost, handler = found
            self.work_left -= cost
            if self.work_left < 0:
                self.spend(0)
            handler(self)
        if code == pickle.STOP:
            return self.stack.pop()
        if code:
            raise MscvtError(f"its pickle is damaged: there is no opcode {code!r}")
        raise MscvtError("its pickle is damaged: it ends before its end")

    def spend(self, work: int) -> None:
        """Count work that is no opcode.

        Raises:
            MscvtError: Where it is too much.
        """
        self.work_left -= work
        if self.work_left < 0:
            raise MscvtError("its pickle is larger than any checkpoint's, or made to use up memory")

    def copied(self, nbytes: int) -> None:
        """Count bytes that are copied from within the pickle, where each should be copied once.

        Raises:
            MscvtError: Where there are more than the pickle could have.
        """
        self._copies_left -= nbytes
        if self._copies_left < 0:
            raise MscvtError("its pickle copies the same bytes again and again")

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for a name.

        Raises:
            MscvtError: Where the name is there to do harm, or not among those that are allowed.
        """
        if len(module) > _NAME_LENGTH or len(name) > _NAME_LENGTH:
            raise MscvtError("its pickle has a name that is too long")
        found = Global(_OLD_MODULES.get(module, module), name)
        if is_harmful(found):
            raise MscvtError(
                f"its pickle holds code, not weights: {str(found)[:100]!r}",
                hint="Nothing of it was run. Use only files from a source you trust, or safetensors.",
            )
        if self._allowed is not None and str(found) not in self._allowed:
            raise MscvtError(
                f"its pickle names {str(found)[:100]!r}, which no file of this kind that is known has",
                hint="Nothing of it was run. Is the file what it should be?",
            )
        return found

    def make(self, function: Any, arguments: Any) -> Any:
        """What a call in the pickle gives."""
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise MscvtError("its pickle is damaged: it calls something that is no function")
        self.spend(_OBJECT_WORK)
        known = KNOWN.get(str(function))
        return Recorded(str(function), arguments) if known is None else known(self, *arguments)

    def check_key(self, key: Any) -> None:
        """Refuse what takes long to hash or compare.

        Raises:
            MscvtError: Where a dict's key or a set's item is anything but a short plain value.
        """
        kind = type(key)
        if kind is str or kind is bytes:
            fits = len(key) <= _KEY_LENGTH
        elif kind is int:
            fits = -_LARGEST_KEY < key < _LARGEST_KEY
        elif kind is tuple:
            self.spend(_TUPLE_KEY_WORK)
            items, seen = [*key], 0
            fits = True
            while items and fits:
                item = items.pop()
                seen += 1
                if type(item) is tuple:
                    items += item[:_KEY_ITEMS]
                    fits = len(items) + seen <= _KEY_ITEMS
                else:
                    self.check_key(item)
                    fits = seen <= _KEY_ITEMS
        else:
            fits = kind in _PLAIN_KEYS
        if not fits:
            raise MscvtError(f"its pickle has a key of a dict or set that is no short plain value: {kind.__name__}")

    def set_item(self, target: Any, key: Any, value: Any) -> None:
        """Fill a dict; what other objects hold is not kept."""
        self.check_key(key)
        self.spend(1)
        if type(target) is dict:
            target[key] = value
        elif type(target) is not Recorded:
            raise MscvtError("its pickle is damaged: it sets items of what is no dict")

    def set_items(self, target: Any, items: Sequence[Any]) -> None:
        """Fill a dict with keys and values in turn."""
        is_dict = type(target) is dict
        for at in range(0, len(items), 2):
            key, value = items[at], items[at + 1]
            if is_dict and type(key) is str and len(key) <= _KEY_LENGTH and self.work_left:
                self.work_left -= 1
                target[key] = value
            else:
                self.set_item(target, key, value)

    def add_items(self, target: Any, items: Iterable[Any]) -> None:
        """Fill a set; what other objects hold is not kept."""
        for item in items:
            self.check_key(item)
            self.spend(1)
            if type(target) is set:
                target.add(item)
            elif type(target) is not Recorded:
                raise MscvtError("its pickle is damaged: it adds items to what is no set")


def unpickle(
    data: bytes,
    storage_of: Callable[[Any], Storage],
    work: int = WORK,
    allowed: Collection[str] | None = None,
) -> Any:
    """What a pickle says, with stand-ins for whatever is not plain.

    Args:
        data: The pickle, of any protocol.
        storage_of: Gives a storage by the persistent id that tensors name it by.
        work: How many steps it may take.
        allowed: The full names that it may hold; None: all but those that are there to do harm.

    Raises:
        MscvtError: Where it names harmful or other things, or asks for too much work.
        Exception: Anything else where it is damaged; `reading` makes these one.
    """
    return Unpickler(data, storage_of, work, allowed).load()
