"""What stands for the objects of a pickle: nothing is looked up, imported or called."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from mscvt.formats.torch_zip.archive import Record
from mscvt.records import dataclass

_MOST_LOOKED_AT = 64


@dataclass(frozen=True, slots=True)
class Global:
    """A name: of a class, a function, a dtype."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Pairs(list[Any]):
    """What a dict was made from: key, value, key, value. Nobody has hashed the keys, which may be anything."""

    __slots__ = ()

    def __setstate__(self, pair: Any) -> None:
        key, value = pair  # of any length, it could be asked for again and again, or be this list itself
        self += (key, value)

    def get(self, name: str) -> Any:
        """The value that was set last under a name, or None; of so many that it takes long to look, None as well."""
        if len(self) <= _MOST_LOOKED_AT and len(self) % 2 == 0:
            for at in range(len(self) - 2, -1, -2):
                if self[at] == name:
                    return self[at + 1]
        return None


class Recorded:
    """An object of any class, as what the pickle says of it.

    Attributes:
        kind: The full name of its class, or of the function that would make it.
        arguments: What it would be made from.
        state: What would be set on it afterwards, or None.
    """

    __slots__ = ("arguments", "kind", "state")

    def __init__(self, kind: str, arguments: tuple[Any, ...] = (), state: Any = None) -> None:
        self.kind, self.arguments, self.state = kind, arguments, state

    def __repr__(self) -> str:
        return f"<{self.kind!r}>"  # without what it holds, which may be as large as it likes, or itself

    def values(self, *names: str) -> Sequence[Any]:
        """The values of attributes, None for those that are not set."""
        state = self.state
        if type(state) is Pairs and len(state) <= 2 * len(names) and state[::2] == [*names[: len(state) // 2]]:
            return state[1::2] + [None] * (len(names) - len(state) // 2)
        return [state.get(name) if isinstance(state, (dict, Pairs)) else None for name in names]

    @property
    def attributes(self) -> dict[str, Any]:
        """Its attributes, as `vars()` would give them where it does not store them in a way of its own."""
        parts = self.state if isinstance(self.state, tuple) else (self.state,)
        found: dict[str, Any] = {}
        for part in parts[:2]:  # __dict__ and __slots__
            if isinstance(part, dict):
                found |= {name: value for name, value in part.items() if isinstance(name, str)}
        return found


class Storage:
    """The bytes that tensors are views of: a record's data.

    Attributes:
        record: The record.
        start: Where its data begins, in bytes from the file's start.
        kind: The name of its class, which says the dtype of its elements: `BFloat16Storage`.
    """

    __slots__ = ("kind", "record", "start")

    def __init__(self, record: Record, start: int, kind: str) -> None:
        self.record, self.start, self.kind = record, start, kind


class StoredTensor:
    """A tensor in a file.

    Attributes:
        dtype: safetensors' name.
        shape: Its extents.
        strides: Elements from one index to the next, by dimension.
        offset: Of its first element: bytes from the file's start.
        storage: What it is a view of.
    """

    __slots__ = ("dtype", "offset", "shape", "storage", "strides")

    def __init__(
        self, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, storage: Storage
    ) -> None:
        self.dtype, self.shape, self.strides, self.offset, self.storage = dtype, shape, strides, offset, storage

    @property
    def is_contiguous(self) -> bool:
        """Whether its elements lie side by side in row-major order."""
        return _is_contiguous(self.shape, self.strides)


@lru_cache
def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return 0 in shape
        expected *= size
    return True


def described(value: Any) -> str:
    """What a value is, for an error."""
    if isinstance(value, Recorded):
        return repr(value.kind[:100])
    if isinstance(value, Global):
        return f"the name {str(value)[:100]!r}"
    return "dict" if isinstance(value, Pairs) else type(value).__name__
