"""What `.metadata` is written from: stand-ins for torch's classes, with their attributes, so that torch stays away.

torch takes a second to import them. What is pickled of each is what theirs say of themselves in `__getstate__` and
`__reduce__`; versions of torch that know fewer attributes take the others along. Sources: as in `classes.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mscvt.formats.megatron_dist import classes
from mscvt.formats.torch_zip.pickler import pickled_by_name
from mscvt.formats.torch_zip.standins import Global
from mscvt.tensors.info import TORCH_NAMES


class _Call:
    """What is pickled as a call of its class with one argument."""

    def __init__(self, argument: Any) -> None:
        self._argument = argument

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._argument,)


class Size(_Call):
    """A tuple of whole numbers."""


class _Layout(_Call):
    """The layout of a tensor, by its name."""


class _MemoryFormat(_Call):
    """The order of a tensor's dimensions in memory, by its number."""


_STRIDED = _Layout("torch.strided")
_CONTIGUOUS = _MemoryFormat(0)
_DTYPES: Mapping[str, Global] = MappingProxyType(
    {name: Global("torch", torch_name) for name, torch_name in TORCH_NAMES.items()}
)


class _Properties:
    """What a tensor is besides its shape."""

    def __init__(self, dtype: str) -> None:
        self._dtype = _DTYPES[dtype]

    def __getstate__(self) -> tuple[Any, ...]:
        requires_grad = pin_memory = False
        return self._dtype, _STRIDED, requires_grad, _CONTIGUOUS, pin_memory


class Chunk:
    """A box of a tensor: where it begins, and its shape."""

    def __init__(self, offsets: Size, sizes: Size) -> None:
        self.offsets, self.sizes = offsets, sizes


class Tensor:
    """A global tensor: safetensors' name of its dtype, its shape, and its chunks, to be filled."""

    def __init__(self, dtype: str, size: Size) -> None:
        self.properties, self.size = _Properties(dtype), size
        self.chunks: list[Chunk] = []


class Object:
    """What is no tensor."""


class Index:
    """The name of an item: that of an object, or that of a tensor and where a chunk of it begins."""

    def __init__(self, fqn: str, offset: Size | None = None) -> None:
        self.fqn, self.index = fqn, None
        if offset is not None:
            self.offset = offset


class Place:
    """Where an item lies: its file, the byte in it, and how many bytes it has."""

    def __init__(self, relative_path: str, offset: int, length: int) -> None:
        self.relative_path, self.offset, self.length = relative_path, offset, length


class _Whole:
    """All that the file says."""

    def __init__(self, entries: Mapping[str, Tensor | Object], places: Mapping[Index, Place]) -> None:
        self.state_dict_metadata = dict(entries)
        self.planner_data = None
        self.storage_data = dict(places)
        self.storage_meta = None
        self.version = None


_NAMES: Mapping[Any, str] = MappingProxyType(
    {
        _Whole: classes.WRITTEN,
        Tensor: classes.TENSOR,
        Object: classes.OBJECT,
        Chunk: classes.CHUNK,
        Index: classes.INDEX,
        Place: classes.PLACE,
        Size: classes.SIZE,
        _Properties: classes.PROPERTIES,
        _Layout: classes.LAYOUT,
        _MemoryFormat: classes.MEMORY_FORMAT,
        **{dtype: str(dtype) for dtype in _DTYPES.values()},
    }
)


def metadata_pickle(entries: Mapping[str, Tensor | Object], places: Mapping[Index, Place]) -> bytes:
    """The content of `.metadata`.

    Args:
        entries: Every global tensor and object by its name.
        places: Where the item of each chunk and object lies.
    """
    return pickled_by_name(_Whole(entries, places), _NAMES)
