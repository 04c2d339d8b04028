"""Opening files of a checkpoint that nobody vouches for."""

from __future__ import annotations

import mmap
import stat
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from mscvt.errors import MscvtError, shown
from mscvt.formats.guard import Guard
from mscvt.tensors.info import ITEM_SIZES, TORCH_NAMES, TensorInfo

if TYPE_CHECKING:
    import torch


def is_below(name: object) -> TypeGuard[str]:
    """Whether what somebody states is the name of something below a folder."""
    if not isinstance(name, str) or "\0" in name:
        return False
    path = Path(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def file_inside(folder: Path, name: str, why: str) -> Path:
    """The path of a file that a checkpoint names, which must lie in its folder.

    Links are followed, wherever they lead: the folder's owner made them. A name that the checkpoint states is
    somebody else's, and may not climb out of the folder.

    Raises:
        MscvtError: Where the name leaves the folder, or is not that of a regular file.
    """
    path = folder / name
    if not is_below(name):
        raise MscvtError(f"{why}: {shown(repr(name))} is not a file name inside {folder}")
    try:
        status = path.stat()
    except FileNotFoundError:
        is_link = path.is_symlink()
        missing = "Is the download complete? `mscvt check` names everything that is missing."
        raise MscvtError(
            f"{why}: {path} "
            + (f"is a link to {shown(path.readlink())}, which does not exist" if is_link else "does not exist"),
            hint="Is the disk there that it leads to?" if is_link else missing,
        ) from None
    except (OSError, RuntimeError, ValueError) as error:  # loops of links, names that no file can have
        raise MscvtError(f"{why}: {path} can't be opened: {shown(error)}") from None
    if not stat.S_ISREG(status.st_mode):
        raise MscvtError(f"{why}: {path} is not a regular file")
    return path


POINTER = b"version https://git-lfs.github.com/spec/"
"""What the small text begins with that Git LFS leaves where a file was not downloaded."""


def refuse_pointer(path: Path, beginning: bytes) -> None:
    """Say that a file is a Git LFS pointer where its first bytes are those of one.

    Raises:
        MscvtError: Where it is one.
    """
    if beginning.startswith(POINTER):
        raise MscvtError(
            f"{path}: is a Git LFS pointer, the file itself was not downloaded",
            hint="Run `git lfs pull` in its folder, or fetch the model with `mscvt download`.",
        )


class MappedFiles:
    """Files mapped read-only, whose tensors are views of the page cache; safe to use from many threads."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self._bytes: dict[int, torch.Tensor] = {}
        self._maps: dict[int, mmap.mmap] = {}
        self._guards: dict[int, Guard] = {}
        self._lock = threading.Lock()

    def flat(self, info: TensorInfo) -> torch.Tensor:
        """A tensor's elements in memory order, as one dimension, without copying them."""
        import torch

        dtype = getattr(torch, TORCH_NAMES[info.dtype])
        if info.numel == 0:
            return torch.empty(0, dtype=dtype)
        with self._lock:
            whole = self._bytes.get(info.file)
            if whole is None:
                whole = self._bytes[info.file] = self._open(info.file)
            self._guards[info.file].check()
            if info.offset + info.nbytes > len(whole):
                raise MscvtError(f"{self.paths[info.file]}: has become shorter since its header was read")
            if info.offset % ITEM_SIZES[info.dtype]:  # headers of early files are not padded
                return _buffer(self._maps[info.file], dtype, info.numel, info.offset)
        return whole[info.offset : info.offset + info.nbytes].view(dtype)

    def close(self) -> None:
        """Let go of every file, whose writers wait while it is guarded; tensors that are in use stay readable."""
        with self._lock:
            for opened in (self._bytes, self._maps, self._guards):
                opened.clear()

    def _open(self, number: int) -> torch.Tensor:
        import torch

        path = self.paths[number]
        try:
            self._guards[number] = Guard(path)
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise MscvtError(f"{path}: can't be mapped: {error}") from None
        self._maps[number] = mapped
        return _buffer(mapped, torch.uint8, len(mapped), 0)


def _buffer(mapped: mmap.mmap, dtype: torch.dtype, count: int, offset: int) -> torch.Tensor:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns that the buffer can't be written
        return torch.frombuffer(mapped, dtype=dtype, count=count, offset=offset)
