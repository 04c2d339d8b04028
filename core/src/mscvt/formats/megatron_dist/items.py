"""Items of `.distcp` files: each is a whole file of `torch.save`, and holds a chunk of a tensor or an object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mscvt.errors import MscvtError
from mscvt.formats.files import MappedFiles
from mscvt.formats.megatron_dist.metadata import Place
from mscvt.formats.torch_zip.archive import bits_but_checksums, directory_bytes, opened, read_at
from mscvt.formats.torch_zip.reader import load
from mscvt.formats.torch_zip.standins import StoredTensor, described
from mscvt.records import dataclass
from mscvt.tensors.info import TensorInfo

if TYPE_CHECKING:
    from mscvt.tensors.bits import PlainTensor


@dataclass(frozen=True, slots=True)
class _Form:
    """All of an item but its tensor's bytes, as far as it says what those are. Offsets are bytes from its start."""

    head: bytes
    """All that lies before the tensor's bytes."""
    directory: int
    """Where its directory begins."""
    mask: int
    """Those bits from there to the item's end that are in no checksum."""
    closing: int
    """Their values."""

    def is_that_of(self, item: memoryview) -> bool:
        """Whether another item, of as many bytes, says the same of its tensor."""
        closing = int.from_bytes(item[self.directory :], "little")
        return closing & self.mask == self.closing and item[: len(self.head)].tobytes() == self.head


class ItemReader:
    """Opens chunks; of items that differ in their data alone, the first is parsed."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._maps = MappedFiles(paths)
        self._forms: dict[tuple[int, str, tuple[int, ...]], _Form] = {}
        self._found: dict[tuple[int, Place, str, tuple[int, ...]], TensorInfo] = {}

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
        key = file, place, dtype, shape
        info = self._found.get(key)
        if info is None:
            start = place.offset + len(self._form(file, place, dtype, shape).head)
            info = self._found[key] = TensorInfo(dtype, shape, file, start)
        return self._maps.tensor(info)

    def close(self) -> None:
        """Let go of every open file."""
        self._found.clear()
        self._maps.close()

    def _form(self, file: int, place: Place, dtype: str, shape: tuple[int, ...]) -> _Form:
        """The form of an item; that of the last one of its size is taken if all the item's own bytes say the same."""
        key = place.length, dtype, shape
        form = self._forms.get(key)
        if form is None or not form.is_that_of(self._maps.memory(file, place.offset, place.length)):
            form = self._forms[key] = _parsed(self._paths[file], place, dtype, shape)
        return form


def _parsed(path: Path, place: Place, dtype: str, shape: tuple[int, ...]) -> _Form:
    """The form of an item that is read as any file of torch is."""
    tensor = load(path, place.offset, place.length)
    with opened(path) as descriptor:
        where = f"the item at byte {place.offset:,}"
        if not isinstance(tensor, StoredTensor):
            raise MscvtError(f"{where} holds {described(tensor)}, expected a tensor")
        if not tensor.is_contiguous:
            raise MscvtError(f"{where} is a view with strides {tensor.strides}")
        if (tensor.dtype, tensor.shape) != (dtype, shape):
            raise MscvtError(
                f"the item at byte {place.offset:,} is {tensor.dtype} {list(tensor.shape)}, "
                f".metadata says {dtype} {list(shape)}"
            )
        head = read_at(descriptor, place.offset, tensor.offset - place.offset)
        start, _, raw = directory_bytes(descriptor, place.offset, place.length)
        size = place.offset + place.length - start
        mask = bits_but_checksums(raw) | (1 << 8 * size) - (1 << 8 * len(raw))
        closing = int.from_bytes(read_at(descriptor, start, size), "little") & mask
        return _Form(head, start - place.offset, mask, closing)
