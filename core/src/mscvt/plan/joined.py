"""The links of two descriptions, joined where they speak of the same Hugging Face tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain

from mscvt.description.description import Description
from mscvt.errors import Faults
from mscvt.layout.pairs import compose
from mscvt.plan.by_huggingface import ByHuggingFace
from mscvt.plan.by_shard import ByShard
from mscvt.plan.contents import Copy, Name
from mscvt.plan.targets import Form, Lot


class Joined:
    """The links from one topology to another: two descriptions, joined where they speak of the same tensor."""

    def __init__(self, source: Description, target: Description) -> None:
        self.source, self.target = ByHuggingFace(source), ByShard(target)
        self.expected = self.source.expected
        self._forms: dict[tuple[object, ...], tuple[Form, ...]] = {}

    def lots(self) -> Iterator[Lot]:
        """The target's lots, made of the source's shards."""
        there = {names[0]: (lot, number) for lot in self.source.lots() for number, names in enumerate(lot.names)}
        for lot in self.target.lots():
            between = [there[name] for name in lot.sources]
            filling = tuple([found.forms[number] for found, number in between])
            sources: dict[Name, int] = {}
            shards = [found.sources_of(number) for found, number in between]
            numbers = tuple([sources.setdefault(name, len(sources)) for name in chain.from_iterable(shards)])
            kind = lot.forms, filling, numbers
            if kind not in self._forms:
                self._forms[kind] = tuple(joined_form(form, filling, numbers) for form in lot.forms)
            yield lot._replace(forms=self._forms[kind], sources=tuple(sources))

    def equal(self, *, replicas: bool) -> Iterator[tuple[Name, Sequence[Name]]]:
        """The source's replicas."""
        return self.source.equal(replicas=replicas)

    def prove(self, faults: Faults) -> None:
        """Prove both descriptions, and that they are of the same tensors."""
        self.source.prove(faults)
        self.target.prove(faults)
        left_out = self.target.description.left_out
        for name in sorted((self.target.expected.keys() ^ self.source.shapes.keys()) - left_out.keys()):
            faults.add(f"{name} is on one side only")


def joined_form(form: Form, between: Sequence[Form], numbers: Sequence[int]) -> Form:
    """A form that is filled from tensors, filled from what these are filled from themselves.

    Args:
        form: How a target is filled.
        between: How each source of its lot is filled.
        numbers: For each source of these forms, one after the other, its number among all of them.
    """
    starts = tuple(accumulate((len(filling.wanted) for filling in between), initial=0))
    wanted: dict[int, int] = {}
    copies: list[Copy] = []
    for source, walk in form.copies:
        if source is None:
            copies.append(Copy(None, walk))
            continue
        middle = form.wanted[source]
        for share, further in between[middle].copies:
            for joined in compose(walk, further):
                if share is None:
                    copies.append(Copy(None, joined))
                else:
                    number = numbers[starts[middle] + share]
                    copies.append(Copy(wanted.setdefault(number, len(wanted)), joined))
    return Form(form.shape, tuple(copies), tuple(wanted))
