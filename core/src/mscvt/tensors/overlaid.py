"""Several sources as one, under other names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mscvt.errors import MscvtError
from mscvt.records import dataclass
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.sources import Source, SourceTensor

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Overlaid:
    """Tensors of several sources."""

    files: Sequence[Path]
    tensors: Mapping[Any, TensorInfo]
    places: Mapping[Any, tuple[Source, Any]]
    """Name -> the source that has the tensor, and the name that it has there."""
    sources: tuple[Source, ...]

    def tensor(self, name: Any) -> SourceTensor:
        """The elements of a tensor."""
        source, original = self.places[name]
        return source.tensor(original)

    def close(self) -> None:
        """Let go of every open file."""
        for source in self.sources:
            source.close()


def overlaid(*layers: tuple[Source, Callable[[Any], Any]]) -> Overlaid:
    """See sources as one; what several of them have is the last one's.

    Args:
        *layers: Sources, each with what gives a name another one, or None to leave the tensor out.

    Raises:
        MscvtError: Where two tensors of one source get the same name.
    """
    files: list[Path] = []
    tensors: dict[Any, TensorInfo] = {}
    places: dict[Any, tuple[Source, Any]] = {}
    for source, named in layers:
        first = len(files)
        files += source.files
        for original, info in source.tensors.items():
            name = named(original)
            if name is None:
                continue
            if name in places and places[name][0] is source:
                raise MscvtError(
                    f"the source has {name} under two names, {places[name][1]} and {original}",
                    hint="One of them would be lost; remove the one that is not the model's.",
                )
            tensors[name] = info._replace(file=first + info.file)
            places[name] = source, original
    return Overlaid(tuple(files), tensors, places, tuple(source for source, _ in layers))
