"""Where tensors lie in global ones, which a distributed checkpoint has in place of one for each layer and expert."""

from __future__ import annotations

from typing import NamedTuple


class Slot(NamedTuple):
    """Where a tensor lies in a global one, as one of its chunks."""

    name: str
    """The global tensor's."""
    indices: tuple[int, ...] = ()
    """Its indices in the leading dimensions that the global tensor has more than it."""
    counts: tuple[int, ...] = ()
    """The sizes of those dimensions."""
    dimensions: int | None = None
    """How many the tensor has itself, where that tells this slot from another one of the same name."""
    others: tuple[str, ...] = ()
    """Names under which the global tensor is there once more; they share its bytes."""
