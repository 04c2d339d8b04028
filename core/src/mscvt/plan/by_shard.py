"""A description's links grouped by the training stack's tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from mscvt.description.description import Description, Parameter
from mscvt.errors import Faults
from mscvt.layout.rules import EXPERT
from mscvt.plan.by_huggingface import ByHuggingFace
from mscvt.plan.shares import Cut, Shares, filled
from mscvt.plan.targets import Target


class ByShard:
    """A description's links grouped by the training stack's tensors."""

    def __init__(self, description: Description) -> None:
        self.description = description
        self.shares = Shares(description)

    @cached_property
    def expected(self) -> Mapping[str, tuple[int, ...]]:
        """Every Hugging Face tensor that is read -> its shape."""
        return {name: uses[0].side.shape for name, uses in self._inverse.uses.items()}

    @cached_property
    def _inverse(self) -> ByHuggingFace:
        return ByHuggingFace(self.description, self.shares)

    def handles(self) -> Iterator[tuple[Parameter, tuple[int, ...]]]:
        """Parameters and numbers of their shares; experts of different ranks, and those one by one, are apart."""
        for parameter in self.description.parameters:
            dimensions = parameter.layout.dimensions
            groups: dict[Any, list[int]] = {}
            for number, (share, _, _) in enumerate(self.shares.of(parameter.layout)):
                expert = share.index[dimensions.index(EXPERT)] if EXPERT in dimensions else None
                groups.setdefault((expert, share.numbers), []).append(number)
            yield from ((parameter, tuple(numbers)) for numbers in groups.values())

    def targets(self, handle: tuple[Parameter, tuple[int, ...]]) -> tuple[Target, ...]:
        """The shares of a parameter."""
        parameter, numbers = handle
        cuts = self.shares.of(parameter.layout)
        return tuple(self._target(parameter, cuts[number]) for number in numbers)

    def _target(self, parameter: Parameter, cut: Cut) -> Target:
        right = parameter.layout.right
        sources = tuple(filled(parameter.names[side], right[side].held, at) for side, at in cut.wanted)
        return Target(
            self.shares.names(parameter, cut.share),
            cut.share.shape,
            cut.copies,
            sources,
            parameter.keeps_dtype,
            () if sources else tuple(filter(None, parameter.names)),
        )

    def equal(self, *, replicas: bool) -> Iterator[tuple[str, str]]:  # noqa: ARG002  # there are none on this side
        """Hugging Face tensors that repeat others."""
        for name, alias in sorted(self.description.aliases.items()):
            yield alias.of, name

    def prove(self, faults: Faults) -> None:
        """Prove both sides."""
        self._inverse.prove(faults)
