"""Sources whose tensors have other names than the family gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mscvt.errors import MscvtError
from mscvt.records import dataclass
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.sources import NotedSource, SourceTensor

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Renamed:
    """A source under the family's names."""

    original: NotedSource
    tensors: Mapping[str, TensorInfo]
    names: Mapping[str, str]
    """The family's name -> the source's, where they differ."""

    @property
    def files(self) -> Sequence[Path]:
        """The files of the original."""
        return self.original.files

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of the original."""
        return self.original.notes

    def tensor(self, name: str) -> SourceTensor:
        """The elements of a tensor."""
        return self.original.tensor(self.names.get(name, name))

    def close(self) -> None:
        """Let go of the original's files."""
        self.original.close()


def renamed(source: NotedSource, spellings: Mapping[str, str]) -> NotedSource:
    """Give tensors the family's names.

    Args:
        source: A source of Hugging Face's tensors.
        spellings: The source's name -> the family's.

    Raises:
        MscvtError: Where the source has a tensor under both names.
    """
    names = {ours: theirs for theirs, ours in spellings.items() if theirs in source.tensors}
    if not names:
        return source
    if twice := sorted(names.keys() & source.tensors.keys()):
        raise MscvtError(
            f"the source has {twice[0]} under another name too, {names[twice[0]]}",
            hint="One of them would be lost; remove the one that is not the model's.",
        )
    tensors = {spellings.get(name, name): info for name, info in source.tensors.items()}
    return Renamed(source, tensors, names)
