"""A walk through a tensor as the slices that it takes of it: `[0:512, :]`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mscvt.records import dataclass

Loops = Iterable[tuple[int, int]]
"""(Extent, stride in elements) of the loops of a walk."""


@dataclass(frozen=True, slots=True)
class Span:
    """What is taken of one axis: `count` runs of `length` indices, each `step` after the one before."""

    start: int
    length: int
    count: int = 1
    step: int = 0

    @property
    def runs(self) -> list[tuple[int, int]]:
        """Start and end of each run."""
        return [(self.start + i * self.step, self.start + i * self.step + self.length) for i in range(self.count)]


def spans_of(shape: Sequence[int], start: int, loops: Loops) -> tuple[Span, ...] | None:
    """What a walk takes of each axis; None where it doesn't follow the axes.

    >>> spans_of((4, 6), 12, [(12, 1)])
    (Span(start=2, length=2, count=1, step=0), Span(start=0, length=6, count=1, step=0))
    >>> spans_of((8, 6), 6, [(2, 24), (6, 1)])
    (Span(start=1, length=1, count=2, step=4), Span(start=0, length=6, count=1, step=0))
    """
    strides = _strides(shape)
    found: list[list[tuple[int, int]]] = [[] for _ in shape]
    for extent, stride in loops:
        if not _divide(extent, stride, shape, strides, found):
            return None
    first = [start // stride % size if size else 0 for stride, size in zip(strides, shape, strict=True)]
    spans = tuple(_span(begin, steps) for begin, steps in zip(first, found, strict=True))
    return None if None in spans else spans  # type: ignore[return-value]  # none of them is None


def _strides(shape: Sequence[int]) -> list[int]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return strides[::-1]


def _divide(
    extent: int, stride: int, shape: Sequence[int], strides: Sequence[int], found: list[list[tuple[int, int]]]
) -> bool:
    """Divide a loop among the axes that it runs through; False where it can't be."""
    while extent > 1:
        axis = next((axis for axis, width in enumerate(strides) if width <= stride and shape[axis] > 1), None)
        if axis is None or stride % strides[axis]:
            return False
        step = stride // strides[axis]
        outer = any(size > 1 for size in shape[:axis])
        if not outer or (extent - 1) * step < shape[axis]:
            found[axis].append((extent, step))
            return True
        inside, rest = divmod(shape[axis], step)
        if rest or extent % inside:
            return False
        found[axis].append((inside, step))
        extent, stride = extent // inside, stride * inside
    return True


def _span(start: int, steps: list[tuple[int, int]]) -> Span | None:
    """The loops along one axis, as runs that are equally far apart."""
    length, outer = 1, list[tuple[int, int]]()
    for extent, step in sorted(steps, key=lambda loop: loop[1]):
        if not outer and step == length:
            length *= extent
        elif outer and step == outer[-1][0] * outer[-1][1]:
            outer[-1] = (outer[-1][0] * extent, outer[-1][1])
        else:
            outer.append((extent, step))
    if len(outer) > 1:
        return None
    return Span(start, length, *outer[0]) if outer else Span(start, length)


def region_text(shape: Sequence[int], start: int, loops: Loops) -> str:
    """What a walk takes of a tensor, in brackets; empty where it takes all of it.

    >>> region_text((8, 6), 12, [(12, 1)])
    '[2:4, :]'
    >>> region_text((8, 6), 0, [(2, 24), (12, 1)])
    '[0:2 4:6, :]'
    """
    spans = spans_of(shape, start, loops)
    if spans is None:
        return "[in several pieces]"
    texts = [_span_text(span, size) for span, size in zip(spans, shape, strict=True)]
    return f"[{', '.join(texts)}]" if set(texts) - {":"} else ""


_MOST_RUNS = 3


def _span_text(span: Span, size: int) -> str:
    if span.count == 1:
        return ":" if span.length == size else f"{span.start}:{span.start + span.length}"
    if span.count <= _MOST_RUNS:
        return " ".join(f"{start}:{end}" for start, end in span.runs)
    return f"{span.start}:{span.start + span.length} and {span.count - 1} more, each {span.step} on"
