"""What `.metadata` is written from, without torch, which takes a second to import.

What stands in the pickle of each object is what torch's classes say of themselves in `__getstate__` and `__reduce__`;
versions of torch that know fewer attributes take the others along. A chunk's words are put together from those that all
chunks have, in less than half of the time that the standard library's pickler takes. Sources: as in `classes.py`.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterable, Sequence

from mscvt.formats.megatron_dist import classes
from mscvt.formats.megatron_dist.metadata import Place
from mscvt.tensors.info import TORCH_NAMES

_PROTOCOL = 4
"""The first that gives what it remembers the next number."""
_FEW = 256
"""Numbers below have one byte."""
_SMALL = [pickle.BININT1 + bytes([number]) for number in range(_FEW)]
_TUPLES = {0: (b"", pickle.EMPTY_TUPLE), 1: (b"", pickle.TUPLE1), 2: (b"", pickle.TUPLE2), 3: (b"", pickle.TUPLE3)}
"""What stands before and behind so many values."""
_MADE = pickle.EMPTY_TUPLE + pickle.NEWOBJ
_CALLED = pickle.TUPLE1 + pickle.REDUCE


class MetadataPickle:
    """The pickle of a `.metadata`, put together chunk by chunk."""

    def __init__(self) -> None:
        """Begin with one that says nothing."""
        self._remembered = bytearray()
        """The words of what is numbered: all that may occur more than once."""
        self._count = 0
        self._names: dict[str, bytes] = {}
        """Names -> the words that fetch what has them."""
        self._texts: dict[str, bytes] = {}
        self._tensors: dict[str, tuple[bytes, bytes, list[bytes]]] = {}
        self._objects: list[bytes] = []
        self._places: list[bytes] = []
        self._sizes: dict[tuple[int, ...], bytes] = {}
        self._size_class = self._name(classes.SIZE)
        self._chunk = self._form(classes.CHUNK, "offsets", "sizes")
        self._index = self._form(classes.INDEX, "fqn", "index")
        self._chunk_index = self._form(classes.INDEX, "fqn", "index", "offset")
        self._place = self._form(classes.PLACE, "relative_path", "offset", "length")

    def add_chunk(
        self,
        names: Sequence[str],
        dtype: str,
        shape: tuple[int, ...],
        offsets: tuple[int, ...],
        sizes: tuple[int, ...],
        place: Place,
    ) -> None:
        """Say what a chunk is, and where its item lies.

        Args:
            names: The global tensors that it is a part of.
            dtype: safetensors' name of their dtype.
            shape: Theirs.
            offsets: Where it begins in them.
            sizes: Its shape.
            place: Of its item.
        """
        begin, lies = self._size(offsets), self._where(place)
        if len(names) > 1:
            lies = self._remember(lies)
        chunk = self._chunk % (begin, self._size(sizes))
        for name in names:
            if name not in self._tensors:
                self._tensors[name] = self._properties(dtype), self._size(shape), []
            self._tensors[name][2].append(chunk)
            self._places += (self._chunk_index % (self._text(name), pickle.NONE, begin), lies)

    def add_objects(self, names: Iterable[str], place: Place) -> None:
        """Say that there are objects, and where the item lies that all of them are."""
        made, lies = self._remember(self._name(classes.OBJECT) + _MADE), self._remember(self._where(place))
        for name in names:
            fqn = self._text(name)
            self._objects += (fqn, made)
            self._places += (self._index % (fqn, pickle.NONE), lies)

    def content(self) -> bytes:
        """The content of `.metadata`."""
        whole = self._form(
            classes.WRITTEN, "state_dict_metadata", "planner_data", "storage_data", "storage_meta", "version"
        )
        tensor = self._form(classes.TENSOR, "properties", "size", "chunks")
        begin, end = pickle.EMPTY_LIST + pickle.MARK, pickle.APPENDS
        tensors = [
            self._text(name) + tensor % (properties, size, b"".join((begin, *chunks, end)))
            for name, (properties, size, chunks) in self._tensors.items()
        ]
        begin, end = pickle.EMPTY_DICT + pickle.MARK, pickle.SETITEMS
        entries = b"".join((begin, *tensors, *self._objects, end))
        places = b"".join((begin, *self._places, end))
        said = self._remembered + whole % (entries, pickle.NONE, places, pickle.NONE, pickle.NONE) + pickle.STOP
        return b"".join((pickle.PROTO, bytes([_PROTOCOL]), pickle.FRAME, struct.pack("<Q", len(said)), said))

    def _properties(self, dtype: str) -> bytes:
        layout = self._name(classes.LAYOUT) + self._text("torch.strided") + _CALLED
        memory_format = self._name(classes.MEMORY_FORMAT) + _number(0) + _CALLED  # contiguous
        requires_grad = pin_memory = pickle.NEWFALSE
        state = self._name(f"torch.{TORCH_NAMES[dtype]}") + layout + requires_grad + memory_format + pin_memory
        return self._name(classes.PROPERTIES) + _MADE + pickle.MARK + state + pickle.TUPLE + pickle.BUILD

    def _where(self, place: Place) -> bytes:
        return self._place % (self._text(place.file), _number(place.offset), _number(place.length))

    def _size(self, numbers: tuple[int, ...]) -> bytes:
        fetched = self._sizes.get(numbers)
        if fetched is None:
            begin, end = _TUPLES.get(len(numbers), (pickle.MARK, pickle.TUPLE))
            words = b"".join((self._size_class, begin, *map(_number, numbers), end, _CALLED))
            fetched = self._sizes[numbers] = self._remember(words)
        return fetched

    def _form(self, kind: str, *attributes: str) -> bytes:
        """An object of a class with room for the values of its attributes."""
        words = [self._name(kind) + _MADE + pickle.EMPTY_DICT + pickle.MARK, *map(self._text, attributes)]
        words = [words[0] + words[1], *words[2:], pickle.SETITEMS + pickle.BUILD]
        return b"%b".join(map(_escaped, words))

    def _name(self, full: str) -> bytes:
        """Fetch what has a name."""
        if full not in self._names:
            module, _, name = full.rpartition(".")
            self._names[full] = self._remember(_written(module) + _written(name) + pickle.STACK_GLOBAL)
        return self._names[full]

    def _text(self, text: str) -> bytes:
        """Fetch a text."""
        if text not in self._texts:
            self._texts[text] = self._remember(_written(text))
        return self._texts[text]

    def _remember(self, words: bytes) -> bytes:
        """Give what these words make the next number, for words that fetch it."""
        number = self._count
        self._count += 1
        self._remembered += words + pickle.MEMOIZE + pickle.POP
        return pickle.BINGET + bytes([number]) if number < _FEW else pickle.LONG_BINGET + struct.pack("<I", number)


def _escaped(words: bytes) -> bytes:
    """Words as they stand in a form."""
    return words.replace(b"%", b"%%")


def _written(text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) < _FEW:
        return pickle.SHORT_BINUNICODE + bytes([len(encoded)]) + encoded
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _number(value: int) -> bytes:
    """A whole number without what begins and ends a pickle."""
    return _SMALL[value] if value < _FEW else pickle.dumps(value, 2)[2:-1]
