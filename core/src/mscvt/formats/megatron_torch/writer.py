"""Allocating a Megatron checkpoint: files of torch.save with room for their tensors, and the tracker."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mscvt.errors import MscvtError
from mscvt.formats.megatron_torch.paths import TRACKER
from mscvt.plan.contents import Name

if TYPE_CHECKING:
    from mscvt.formats.torch_zip.skeleton import Skeleton

CHECKPOINT_VERSION = 3.0

_Tensors = Mapping[Name, tuple[str, tuple[int, ...]]]
"""(rank, chunk, key) -> (dtype, shape)."""


class Allocator:
    """Makes the ranks' files of one checkpoint; files that differ in nothing but weights are laid out once."""

    def __init__(
        self,
        args: Mapping[str, Any],
        iteration: int | str,
        empty_states: Callable[[Sequence[str]], Sequence[str]] = lambda keys: (),
    ) -> None:
        """Prepare to make files.

        Args:
            args: What the checkpoint records.
            iteration: The iteration to record; `release` is none.
            empty_states: Gives keys with the value None that stand in a chunk beside these keys of tensors.
        """
        self._args, self._iteration = args, iteration if isinstance(iteration, int) else 0
        self._empty_states = empty_states
        self._laid_out: dict[Any, tuple[Skeleton, list[int]]] = {}

    def allocate(self, path: Path, tensors: _Tensors, chunks: Sequence[str]) -> dict[Name, int]:
        """Write a rank's file without the bytes of its tensors; the space for them is left empty.

        Args:
            path: The file.
            tensors: (rank, chunk, key) -> (dtype, shape).
            chunks: All chunks of the rank, also those without tensors.

        Returns:
            The offset of each tensor from the file's start, in bytes.

        Raises:
            OSError: Where the disk is full or broken.
        """
        from mscvt.formats.torch_zip.skeleton import write_skeleton

        skeleton, numbers = self._laid(tensors, chunks)
        write_skeleton(path, skeleton)
        return {name: skeleton.starts[number] for name, number in zip(tensors, numbers, strict=True)}

    def _laid(self, tensors: _Tensors, chunks: Sequence[str]) -> tuple[Skeleton, list[int]]:
        content = tuple(chunks), tuple(map(itemgetter(1, 2), tensors)), tuple(tensors.values())
        if content not in self._laid_out:
            self._laid_out[content] = self._lay_out(tensors, chunks)
        return self._laid_out[content]

    def _lay_out(self, tensors: _Tensors, chunks: Sequence[str]) -> tuple[Skeleton, list[int]]:
        """A file, and the number of each tensor's storage in it."""
        from argparse import Namespace

        from mscvt.formats.torch_zip.pickler import EmptyTensor, pickled
        from mscvt.formats.torch_zip.skeleton import build_skeleton

        state: dict[str, Any] = {
            "args": Namespace(**self._args),
            "checkpoint_version": CHECKPOINT_VERSION,
            "iteration": self._iteration,
        }
        state |= {chunk: {} for chunk in chunks}
        # storages are numbered as the pickle names them, which torch relies on where it calculates their places
        ordered = sorted(tensors, key=lambda name: chunks.index(name[1]))
        empty = {name: EmptyTensor(*tensors[name], number) for number, name in enumerate(ordered)}
        for (_, chunk, key), tensor in empty.items():
            state[chunk][key] = tensor
        for chunk in chunks:
            state[chunk] |= dict.fromkeys(self._empty_states(list(state[chunk])))
        skeleton = build_skeleton(pickled(state), [tensor.nbytes for tensor in empty.values()])
        return skeleton, [empty[name].key for name in tensors]

    def offsets(self, path: Path, tensors: _Tensors, chunks: Sequence[str]) -> dict[Name, int]:
        """Where the tensors of a file are that was allocated before.

        Raises:
            MscvtError: Where it is not as it was allocated, but for tensors and checksums.
        """
        from mscvt.formats.torch_zip.archive import opened
        from mscvt.formats.torch_zip.skeleton import is_laid_out

        skeleton, numbers = self._laid(tensors, chunks)
        with opened(path) as descriptor:
            if os.fstat(descriptor).st_size != skeleton.length or not is_laid_out(descriptor, skeleton):
                raise MscvtError("is not what was made here")
        return {name: skeleton.starts[number] for name, number in zip(tensors, numbers, strict=True)}

    def seal(self, path: Path, tensors: _Tensors, chunks: Sequence[str], checksums: Mapping[Name, int]) -> None:
        """Note the checksums of a file's tensors. The caller syncs the file.

        Args:
            path: The file.
            tensors: As it was allocated.
            chunks: As it was allocated.
            checksums: The CRC-32 of each tensor's bytes.

        Raises:
            OSError: Where the disk is full or broken.
        """
        from mscvt.formats.torch_zip.skeleton import write_checksums

        skeleton, numbers = self._laid(tensors, chunks)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            by_number = dict(zip(numbers, tensors, strict=True))
            write_checksums(descriptor, skeleton, (checksums[by_number[n]] for n in range(len(by_number))))
        finally:
            os.close(descriptor)


def write_tracker(folder: Path, iteration: int | str) -> None:
    """Name the iteration that training starts from."""
    (folder / TRACKER).write_text(str(iteration), encoding="utf-8")
