"""The links of two descriptions, joined where they speak of the same Hugging Face tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mscvt.description.description import Description
from mscvt.errors import Faults
from mscvt.layout.pairs import compose
from mscvt.plan.by_huggingface import ByHuggingFace
from mscvt.plan.by_shard import ByShard
from mscvt.plan.contents import Copy, Name
from mscvt.plan.targets import Target


class Joined:
    """The links from one topology to another: two descriptions, joined where they speak of the same tensor."""

    def __init__(self, source: Description, target: Description) -> None:
        self.source, self.target = ByHuggingFace(source), ByShard(target)
        self.expected = self.source.expected

    def handles(self) -> Iterator[Any]:
        """The target's parameters and shares."""
        return self.target.handles()

    def targets(self, handle: Any) -> tuple[Target, ...]:
        """The target's shares, made of the source's."""
        return tuple(map(self._joined, self.target.targets(handle)))

    def _joined(self, target: Target) -> Target:
        names: dict[Name, int] = {}
        copies: list[Copy] = []
        for source, walk in target.copies:
            if source is None:
                copies.append(Copy(None, walk))
                continue
            (between,) = self.source.targets(target.sources[source])
            for share, further in between.copies:
                for joined in compose(walk, further):
                    number = names.setdefault(between.sources[share or 0], len(names))
                    copies.append(Copy(number, joined))
        kin = tuple(name for kin in target.kin for between in self.source.targets(kin) for name in between.sources)
        return Target(target.names, target.shape, tuple(copies), tuple(names), target.keeps_dtype, kin)

    def equal(self, *, replicas: bool) -> Iterator[tuple[Name, Name]]:
        """The source's replicas."""
        return self.source.equal(replicas=replicas)

    def prove(self, faults: Faults) -> None:
        """Prove both descriptions, and that they are of the same tensors."""
        self.source.prove(faults)
        self.target.prove(faults)
        left_out = self.target.description.left_out
        for name in sorted((self.target.expected.keys() ^ self.source.uses.keys()) - left_out.keys()):
            faults.add(f"{name} is on one side only")
