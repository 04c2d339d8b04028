"""Opening files of a checkpoint that nobody vouches for."""

from __future__ import annotations

import mmap
import stat
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

from mscvt.errors import MscvtError, shown
from mscvt.formats.guard import Guard
from mscvt.tensors.info import TensorInfo

if TYPE_CHECKING:
    from mscvt.tensors.bits import PlainTensor


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


_MOST_MAPPED = 128
"""Files of one checkpoint that are mapped at once; more than a layer's weights lie in, as a rule."""


def mapped_at_once(paths: Collection[object]) -> int:
    """How many of a checkpoint's files are mapped at the same time, however many there are."""
    return min(len(paths), _MOST_MAPPED)


class _Mapped(mmap.mmap):
    """A mapped file, which is guarded as long as anybody reads it."""

    guard: Guard


class _Opened(NamedTuple):
    """What a file's tensors are made with."""

    check: Callable[[], None]
    """Sees that the file is as it was."""
    memory: memoryview
    """All its bytes."""
    view: type[PlainTensor]
    """Imported as late as a file is opened, since that takes numpy."""


class MappedFiles:
    """Files mapped read-only, whose tensors are views of the page cache; safe to use from many threads.

    Of many files only those are kept open that were opened last.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self._opened: dict[int, _Opened] = {}
        self._lock = threading.Lock()

    def tensor(self, info: TensorInfo) -> PlainTensor:
        """A tensor's elements, without copying them.

        Raises:
            MscvtError: Where its file can't be read, or is not as it was when its header was read.
        """
        opened = self._opened.get(info.file) or self._open(info.file)
        return opened.view(self._part(opened, info.file, info.offset, info.nbytes), info.dtype)

    def memory(self, number: int, offset: int, nbytes: int) -> memoryview:
        """Some of a file's bytes, without copying them: to be looked at at once, as the file is seen to be whole now.

        Raises:
            MscvtError: Where the file can't be read, or is not as it was when its header was read.
        """
        return self._part(self._opened.get(number) or self._open(number), number, offset, nbytes)

    def _part(self, opened: _Opened, number: int, offset: int, nbytes: int) -> memoryview:
        opened.check()
        memory = opened.memory[offset : offset + nbytes]
        if len(memory) != nbytes:
            raise MscvtError(f"{self.paths[number]}: has become shorter since its header was read")
        return memory

    def close(self) -> None:
        """Let go of every file, whose writers wait while it is guarded; tensors that are in use stay readable."""
        with self._lock:
            self._opened.clear()

    def _open(self, number: int) -> _Opened:
        from mscvt.tensors.bits import PlainTensor

        path = self.paths[number]
        with self._lock:
            if number in self._opened:
                return self._opened[number]
            if len(self._opened) >= _MOST_MAPPED:
                del self._opened[next(iter(self._opened))]
            try:
                guard = Guard(path)
                with path.open("rb") as file:
                    mapped = _Mapped(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise MscvtError(f"{path}: can't be mapped: {error}") from None
            mapped.guard = guard
            opened = self._opened[number] = _Opened(guard.check, memoryview(mapped), PlainTensor)
        return opened
