"""A description's links grouped by the training stack's tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, chain

from mscvt.description.description import Description
from mscvt.errors import Faults
from mscvt.layout.layout import Layout
from mscvt.layout.rules import EXPERT
from mscvt.plan.by_huggingface import ByHuggingFace
from mscvt.plan.shares import Shares
from mscvt.plan.targets import Form, Lot


class ByShard:
    """A description's links grouped by the training stack's tensors."""

    def __init__(self, description: Description) -> None:
        self.description = description
        self.shares = Shares(description)
        self._forms: dict[Layout, tuple[tuple[Form, ...], tuple[tuple[int, ...], ...]]] = {}

    @cached_property
    def expected(self) -> Mapping[str, tuple[int, ...]]:
        """Every Hugging Face tensor that is read -> its shape."""
        return self._inverse.shapes

    @cached_property
    def _inverse(self) -> ByHuggingFace:
        return ByHuggingFace(self.description, self.shares)

    def lots(self) -> Iterator[Lot]:
        """The shares of each parameter; in its work, experts of different ranks, and those one by one, are apart."""
        for parameter in self.description.parameters:
            layout = parameter.layout
            if layout not in self._forms:
                self._forms[layout] = self._forms_of(layout), tuple(self._together(layout))
            forms, together = self._forms[layout]
            sources = tuple(chain.from_iterable(self.shares.tensors(parameter)))
            yield Lot(self.shares.names(parameter), forms, sources, together, parameter.keeps_dtype)

    def _forms_of(self, layout: Layout) -> tuple[Form, ...]:
        """How each share of a layout is filled from the tensors of its right side, one after the other."""
        counts = (0 if side.is_padding else len(side.indices) for side in layout.right)
        starts = tuple(accumulate(counts, initial=0))
        return tuple(
            Form(cut.share.shape, cut.copies, tuple(starts[side] + place for side, place in cut.wanted))
            for cut in self.shares.of(layout)
        )

    def _together(self, layout: Layout) -> Iterator[tuple[int, ...]]:
        """The numbers of the shares of a layout that make a piece of work."""
        groups: dict[tuple[int | None, tuple[int, ...]], list[int]] = {}
        for number, (share, _, _) in enumerate(self.shares.of(layout)):
            expert = share.index[layout.dimensions.index(EXPERT)] if EXPERT in layout.dimensions else None
            groups.setdefault((expert, share.numbers), []).append(number)
        yield from map(tuple, groups.values())

    def equal(self, *, replicas: bool) -> Iterator[tuple[str, Sequence[str]]]:  # noqa: ARG002  # there are none here
        """Hugging Face tensors that repeat others."""
        for name, alias in sorted(self.description.aliases.items()):
            yield alias.of, [name]

    def prove(self, faults: Faults) -> None:
        """Prove both sides."""
        self._inverse.prove(faults)
