"""Items of `.distcp` files: each is a whole file of `torch.save`, and holds a chunk of a tensor or an object."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mscvt.errors import MscvtError
from mscvt.formats.files import MappedFiles
from mscvt.formats.megatron_dist.metadata import Place
from mscvt.formats.torch_zip.archive import directory_bytes, opened, read_at, reading, without_checksums
from mscvt.formats.torch_zip.reader import load
from mscvt.formats.torch_zip.standins import StoredTensor, described
from mscvt.records import dataclass
from mscvt.tensors.info import TensorInfo

if TYPE_CHECKING:
    from mscvt.tensors.bits import PlainTensor


@dataclass(frozen=True, slots=True)
class _Form:
    """What items of one dtype and shape have in common. Offsets are bytes from the item's start."""

    head: bytes
    """All that lies before the tensor's bytes."""
    dtype: str
    shape: tuple[int, ...]


class ItemReader:
    """Opens chunks; of items that differ in their data alone, the first is parsed."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._maps = MappedFiles(paths)
        self._forms: dict[bytes, _Form] = {}
        self._starts: dict[tuple[int, Place, str, tuple[int, ...]], int] = {}
        self._lock = threading.Lock()

    def tensor(self, file: int, place: Place, dtype: str, shape: tuple[int, ...]) -> PlainTensor:
        """The elements of a chunk, once its item proved to be what it should be.

        Args:
            file: The number of its file.
            place: Where the item lies in it.
            dtype: safetensors' name of what it should hold.
            shape: The chunk's.

        Raises:
            MscvtError: Where the item is damaged, contradicts itself, or holds something else.
        """
        with self._lock:
            key = file, place, dtype, shape
            start = self._starts.get(key)
            if start is None:
                start = self._starts[key] = self._data_start(self._paths[file], place, dtype, shape)
        return self._maps.tensor(TensorInfo(dtype, shape, file, start))

    def close(self) -> None:
        """Let go of every open file."""
        with self._lock:
            self._starts.clear()
        self._maps.close()

    def _data_start(self, path: Path, place: Place, dtype: str, shape: tuple[int, ...]) -> int:
        """Where the bytes of a chunk begin, in bytes from the file's start."""
        with opened(path) as descriptor:
            offset, count, raw = directory_bytes(descriptor, place.offset, place.length)
            said = f"{offset - place.offset} {count} ".encode() + without_checksums(raw)
            mark = hashlib.sha256(said).digest()
            form = self._forms.get(mark)
            if form is None or read_at(descriptor, place.offset, len(form.head)) != form.head:
                form = self._forms[mark] = _form(path, descriptor, place)
        if (form.dtype, form.shape) != (dtype, shape):
            raise MscvtError(
                f"{path}: the item at byte {place.offset:,} is {form.dtype} {list(form.shape)}, "
                f".metadata says {dtype} {list(shape)}"
            )
        return place.offset + len(form.head)


def _form(path: Path, descriptor: int, place: Place) -> _Form:
    tensor = load(path, place.offset, place.length)
    with reading(path):
        where = f"the item at byte {place.offset:,}"
        if not isinstance(tensor, StoredTensor):
            raise MscvtError(f"{where} holds {described(tensor)}, expected a tensor")
        if not tensor.is_contiguous:
            raise MscvtError(f"{where} is a view with strides {tensor.strides}")
        head = read_at(descriptor, place.offset, tensor.offset - place.offset)
        return _Form(head, tensor.dtype, tensor.shape)
