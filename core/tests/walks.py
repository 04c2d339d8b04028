"""What walks and layouts do to tensors in memory, element by element, without any of the algebra's own shortcuts."""

from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np

from mscvt.layout.layout import Layout
from mscvt.layout.pairs import Pair
from mscvt.plan.contents import Copy
from mscvt.plan.targets import Grouping

Right = Mapping[tuple[int, tuple[int, ...]], np.ndarray]
"""(Number of a right side, index of each axis that its name holds) -> the tensor."""


def offsets(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """The elements on the left and on the right that a walk meets, in its order."""
    left, right = np.array([pair.left]), np.array([pair.right])
    for extent, by_left, by_right in pair.loops:
        steps = np.arange(extent)
        left = (left[:, None] + steps * by_left).ravel()
        right = (right[:, None] + steps * by_right).ravel()
    return left, right


def met(pair: Pair) -> dict[int, int]:
    """Left element -> right element."""
    left, right = offsets(pair)
    return dict(zip(left.tolist(), right.tolist(), strict=True))


def joined(pairs) -> dict[int, int]:
    """The same for many walks, no two of which may meet the same element."""
    found: dict[int, int] = {}
    for pair in pairs:
        more = met(pair)
        assert len(more) == pair.numel, "a walk meets an element twice"
        assert not more.keys() & found.keys(), "two walks meet one element"
        found |= more
    return found


def places(layout: Layout, counts: Mapping[str, int]) -> list[tuple[int, ...]]:
    """All places in the layout's dimensions."""
    return list(product(*(range(counts[dimension]) for dimension in layout.dimensions)))


def shares_of(layout: Layout, counts: Mapping[str, int], right: Right) -> dict[tuple, np.ndarray]:
    """(Place, numbers in the key) -> the share, filled from whole tensors; each element is filled once."""
    made = {}
    for share in layout.shares(counts, places(layout, counts)):
        flat = np.full(prod(share.shape), -1, dtype=np.int64)
        for piece in share.pieces:
            left, other = offsets(piece.pair)
            assert (flat[left] == -1).all(), "an element is filled twice"
            if layout.right[piece.source].is_padding:
                flat[left] = 0
            else:
                flat[left] = right[piece.source, piece.held].ravel()[other]
        assert (flat != -1).all(), "an element is not filled"
        assert (share.index, share.numbers) not in made
        made[share.index, share.numbers] = flat.reshape(share.shape)
    return made


def merged(layout: Layout, counts: Mapping[str, int], shares: Mapping[tuple, np.ndarray], right: Right) -> None:
    """The way back: put shares together and compare with the whole tensors, all of whose elements must come."""
    back = {key: np.full(tensor.size, -1, dtype=np.int64) for key, tensor in right.items()}
    for share in layout.shares(counts, places(layout, counts)):
        flat = shares[share.index, share.numbers].ravel()
        for piece in share.pieces:
            if layout.right[piece.source].is_padding:
                continue
            left, other = offsets(piece.pair)
            target = back[piece.source, piece.held]
            assert ((target[other] == -1) | (target[other] == flat[left])).all(), "replicas differ"
            target[other] = flat[left]
    for key, tensor in right.items():
        assert (back[key].reshape(tensor.shape) == tensor).all(), key


def numbered(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Tensors of these shapes, no two elements of which are equal; none is 0 or -1."""
    starts = np.cumsum([1, *(prod(shape) for shape in shapes)])
    return [np.arange(prod(s)).reshape(s) + start for s, start in zip(shapes, starts, strict=False)]


class Target(NamedTuple):
    """What fills a tensor."""

    names: tuple
    shape: tuple[int, ...]
    copies: tuple[Copy, ...]
    sources: tuple


def targets(grouping: Grouping) -> Iterator[Target]:
    """All that a grouping writes; each piece of its work is done once."""
    for lot in grouping.lots():
        numbers = [number for together in lot.together for number in together]
        assert sorted(numbers) == list(range(len(lot.forms))) == list(range(len(lot.names)))
        for number in numbers:
            form = lot.forms[number]
            yield Target(lot.names[number], form.shape, form.copies, lot.sources_of(number))


def run(grouping, tensors):
    """Fill all targets of a grouping from tensors by name; each element is filled once, each name made once."""
    made = {}
    for target in targets(grouping):
        flat = np.full(prod(target.shape), -1, dtype=np.int64)
        for source, pair in target.copies:
            left, right = offsets(pair)
            assert (flat[left] == -1).all(), f"{target.names[0]}: an element is filled twice"
            flat[left] = 0 if source is None else tensors[target.sources[source]].ravel()[right]
        assert (flat != -1).all(), f"{target.names[0]}: an element is not filled"
        for name in target.names:
            assert name not in made
            made[name] = flat.reshape(target.shape)
    return made
