"""Pairs: strided walks through two tensors that meet the same elements, and the algebra of them.

A tensor in memory is a run of elements. A *pair* walks through two of them at once: nested loops, each with a
stride on the left and one on the right. Swapping the sides gives the way back (`inverse`), walking from A to B and
on to C gives the way from A to C (`compose`), and a list of pairs is proven to reach each element of a side exactly
once (`uncovered`). Nothing here knows an axis, a file or a direction. All numbers count elements, never bytes.

Every walk comes from a box of a tensor with axes, so on either side its loops nest: the elements that the inner loops
reach lie within one step of the outer loop. `compose` rests on that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import NamedTuple

from mscvt.records import dataclass


class Loop(NamedTuple):
    """One loop of a walk: how often, and how far on either side."""

    extent: int
    left: int
    right: int


@dataclass(frozen=True, slots=True)
class Pair:
    """The same elements of two tensors: `left + sum(i * loop.left)` is `right + sum(i * loop.right)`."""

    left: int
    """Where the walk begins on the left."""
    right: int
    loops: tuple[Loop, ...]
    """Those with the largest stride on the left first; none of extent 1."""

    @property
    def numel(self) -> int:
        """Elements that the walk meets."""
        return prod(loop.extent for loop in self.loops)

    @property
    def left_end(self) -> int:
        """One more than the last element that is met on the left."""
        return self.left + _span(self.loops)

    @property
    def is_run(self) -> bool:
        """Whether the elements lie side by side in both."""
        loops = self.loops
        return not loops or (len(loops) == 1 and loops[0].left == loops[0].right == 1)

    def inverse(self) -> Pair:
        """The same walk with its sides swapped."""
        return pair(self.right, self.left, [Loop(loop.extent, loop.right, loop.left) for loop in self.loops])

    def moved(self, left: int) -> Pair:
        """The same walk, so many elements further on the left."""
        return Pair(self.left + left, self.right, self.loops)


def pair(left: int, right: int, loops: Sequence[Loop]) -> Pair:
    """Make a pair: loops of extent 1 are dropped, neighbours that are one loop on both sides are joined.

    >>> pair(0, 0, [Loop(2, 12, 12), Loop(3, 4, 4), Loop(1, 4, 9), Loop(4, 1, 1)])
    Pair(left=0, right=0, loops=(Loop(extent=24, left=1, right=1),))
    """
    joined: list[Loop] = []
    for loop in sorted(loops, key=lambda loop: -loop.left):
        if loop.extent == 1:
            continue
        if joined:
            extent, by_left, by_right = joined[-1]
            if by_left == loop.extent * loop.left and by_right == loop.extent * loop.right:
                joined[-1] = Loop(extent * loop.extent, loop.left, loop.right)
                continue
        joined.append(loop)
    return Pair(left, right, tuple(joined))


def run_of(left: int, right: int, count: int) -> Pair:
    """A walk through so many elements that lie side by side in both."""
    return Pair(left, right, (Loop(count, 1, 1),) if count > 1 else ())


def compose(first: Pair, second: Pair) -> Iterator[Pair]:
    """Walk from the left of `first` to the right of `second`, where its right and the other's left meet.

    >>> list(compose(Pair(0, 2, (Loop(4, 1, 1),)), Pair(4, 0, (Loop(3, 1, 2),))))
    [Pair(left=2, right=0, loops=(Loop(extent=2, left=1, right=2),))]
    """
    ours = sorted(((n, right, left) for n, left, right in first.loops), key=lambda loop: -loop[1])
    theirs = tuple(second.loops)
    for loops, by_left, by_right in _meet(second.left - first.right, tuple(ours), theirs):
        yield pair(first.left + by_left, second.right + by_right, [Loop(*loop) for loop in loops])


def clip(walk: Pair, start: int, end: int) -> Iterator[Pair]:
    """The parts of a walk whose left side lies in `[start, end)`, counted from `start` on the left."""
    if start <= walk.left and walk.left_end <= end:
        yield walk.moved(-start) if start else walk
    elif max(start, walk.left) < min(end, walk.left_end):
        yield from compose(run_of(0, start, end - start), walk)


def uncovered(numel: int, walks: Sequence[Pair]) -> str | None:
    """Prove that walks meet each of the elements `[0, numel)` of their left side exactly once.

    Returns:
        None where the proof holds, else what is wrong.
    """
    ordered = sorted(walks, key=lambda walk: (walk.left, walk.left_end))
    outside = next((walk for walk in ordered if walk.left < 0 or walk.left_end > numel), None)
    if outside is not None:
        return f"elements {outside.left} to {outside.left_end - 1} are not all inside of its {numel}"
    open_walks: list[Pair] = []
    for walk in ordered:
        open_walks = [other for other in open_walks if other.left_end > walk.left]
        for other in open_walks:
            if next(compose(other.inverse(), walk), None) is not None:
                return "some of its elements are in more than one place"
        open_walks.append(walk)
    missing = numel - sum(walk.numel for walk in ordered)
    return f"{missing} of its {numel} elements are in no place" if missing else None


_Walk = tuple[tuple[int, int, int], ...]
"""Loops of one walk: extent, stride in the tensor where two walks meet, stride in the walk's other tensor."""
_Met = tuple[tuple[tuple[int, int, int], ...], int, int]
"""Where two walks meet: loops (extent, stride in the first's other tensor, in the second's), and where they begin."""


def _span(loops: Sequence[tuple[int, int, int]]) -> int:
    return 1 + sum((loop[0] - 1) * loop[1] for loop in loops)


def _meet(gap: int, ours: _Walk, theirs: _Walk) -> Iterator[_Met]:
    """Yield the elements that two walks through one tensor have in common; theirs begins `gap` after ours.

    The outer loops are made equal: a loop of smaller steps is divided where the other one's steps begin. Steps that
    don't divide one another are taken one by one.
    """
    if gap >= _span(ours) or -gap >= _span(theirs):
        return
    if not ours and not theirs:
        yield (), 0, 0
        return
    our_step = ours[0][1] if ours else 0
    their_step = theirs[0][1] if theirs else 0
    if our_step == their_step:
        yield from _meet_equal(gap, ours, theirs)
    elif our_step < their_step:
        for loops, by_theirs, by_ours in _meet(-gap, theirs, ours):
            yield tuple((n, second, first) for n, first, second in loops), by_ours, by_theirs
    elif theirs and our_step % their_step == 0:
        for start, divided in _divide(gap, our_step, theirs):
            yield from (
                (loops, by_ours, by_theirs + start * theirs[0][2])
                for loops, by_ours, by_theirs in _meet_equal(gap + start * their_step, ours, divided)
            )
    else:
        count, step, other = ours[0]
        first = max(0, (gap - _span(ours[1:])) // step + 1)
        for index in range(first, min(count, (gap + _span(theirs) - 1) // step + 1)):
            for loops, by_ours, by_theirs in _meet(gap - index * step, ours[1:], theirs):
                yield loops, by_ours + index * other, by_theirs


def _meet_equal(gap: int, ours: _Walk, theirs: _Walk) -> Iterator[_Met]:
    """The same where both outer loops take the same step: what their inner loops reach is at most one step apart."""
    (our_count, step, ours_other), (their_count, _, theirs_other) = ours[0], theirs[0]
    shift, rest = divmod(gap, step)
    for moved, inner in ((shift, rest), (shift + 1, rest - step)):
        low, high = max(0, moved), min(our_count, their_count + moved)
        if low >= high:
            continue
        for loops, by_ours, by_theirs in _meet(inner, ours[1:], theirs[1:]):
            outer = ((high - low, ours_other, theirs_other),) if high - low > 1 else ()
            yield outer + loops, by_ours + low * ours_other, by_theirs + (low - moved) * theirs_other


def _divide(gap: int, step: int, walk: _Walk) -> Iterator[tuple[int, _Walk]]:
    """Divide a walk's outer loop where steps of another one begin: an uneven head, whole steps, an uneven tail.

    Yields:
        The index of the outer loop at which a part begins, and the part, with an outer loop of that step.
    """
    (count, small, other), inner = walk[0], walk[1:]
    each = step // small
    head = min(count, -(-(-gap % step) // small) if -gap % step else 0)
    if head:
        yield 0, ((1, step, 0), (head, small, other), *inner)
    whole = (count - head) // each
    if whole:
        yield head, ((whole, step, each * other), (each, small, other), *inner)
    tail = count - head - whole * each
    if tail:
        yield head + whole * each, ((1, step, 0), (tail, small, other), *inner)
