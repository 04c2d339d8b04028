"""Sources whose tensors have other names than the family gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mscvt.errors import MscvtError
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.sources import SourceTensor


@dataclass(frozen=True, slots=True)
class Respelled:
    """A source under the family's names."""

    tensors: Mapping[str, TensorInfo]
    names: Mapping[str, str]
    """The family's name -> the source's, where they differ."""
    open_source: Callable[[str], SourceTensor]

    def tensor(self, name: str) -> SourceTensor:
        """The bytes of a tensor."""
        return self.open_source(self.names.get(name, name))


def respelled(
    tensors: Mapping[str, TensorInfo], open_source: Callable[[str], SourceTensor], spellings: Mapping[str, str]
) -> Respelled:
    """Give tensors the family's names.

    Args:
        tensors: Every tensor of the source.
        open_source: Gives the bytes of one of them.
        spellings: The source's name -> the family's.

    Raises:
        MscvtError: Where the source has a tensor under both names.
    """
    names = {ours: theirs for theirs, ours in spellings.items() if theirs in tensors}
    if twice := sorted(names.keys() & tensors.keys()):
        raise MscvtError(
            f"the source has {twice[0]} under another name too, {names[twice[0]]}",
            hint="One of them would be lost; remove the one that is not the model's.",
        )
    return Respelled({spellings.get(name, name): info for name, info in tensors.items()}, names, open_source)
