"""The algebra of walks against dictionaries: element by element, over boxes whose axes nest and that don't."""

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st
from walks import joined, met

from mscvt.layout.pairs import Loop, Pair, clip, compose, pair, uncovered

FACTORS = [
    (24,),
    (4, 6),
    (6, 4),
    (2, 3, 4),
    (3, 8),
    (8, 3),
    (2, 12),
    (2, 2, 6),
    (5, 5),
    (7, 3),
    (3, 5, 2),
    (2, 2, 2, 3),
]


@st.composite
def boxes(draw, factors=FACTORS):
    """A box of a tensor: where it begins, and (extent, stride) of its axes, largest stride first."""
    sizes = draw(st.sampled_from(factors))
    begin, step, axes = draw(st.sampled_from([0, 0, 3, 7])), 1, []
    for size in reversed(sizes):
        first = draw(st.integers(0, size - 1))
        axes.append((draw(st.integers(1, size - first)), step))
        begin += first * step
        step *= size
    return begin, axes[::-1]


@st.composite
def walks(draw, side):
    """A walk from a box of one tensor to a box of another, whose axes have any order and may have gaps between them."""
    begin, axes = draw(boxes())
    other, step = {}, draw(st.sampled_from([1, 1, 2]))
    for number in draw(st.permutations(range(len(axes)))):
        other[number] = step
        step *= axes[number][0] * draw(st.sampled_from([1, 1, 2]))
    loops = [(extent, step, other[number]) for number, (extent, step) in enumerate(axes)]
    if side == "right":
        return pair(draw(st.integers(0, 4)), begin, [Loop(n, there, here) for n, here, there in loops])
    return pair(begin, draw(st.integers(0, 4)), [Loop(*loop) for loop in loops])


@given(walks("right"), walks("left"))
def test_compose_meets_what_both_walks_meet(first, second):
    onward = met(second)
    expected = {left: onward[between] for left, between in met(first).items() if between in onward}
    assert joined(compose(first, second)) == expected


@given(walks("left"), st.integers(0, 40), st.integers(0, 40))
def test_clip_keeps_what_lies_inside_counted_from_its_start(walk, start, size):
    expected = {left - start: right for left, right in met(walk).items() if start <= left < start + size}
    assert joined(clip(walk, start, start + size)) == expected


@given(walks("left"))
def test_inverse_swaps_the_sides_and_is_its_own_inverse(walk):
    assert met(walk.inverse()) == {right: left for left, right in met(walk).items()}
    assert walk.inverse().inverse() == walk


@given(walks("left"), st.integers(-3, 30))
def test_properties_of_a_walk_are_those_of_its_elements(walk, by):
    elements = met(walk)
    assert walk.numel == len(elements)
    assert walk.left_end == max(elements) + 1
    assert met(walk.moved(by)) == {left + by: right for left, right in elements.items()}
    assert all(loop.extent > 1 for loop in walk.loops)
    assert list(walk.loops) == sorted(walk.loops, key=lambda loop: -loop.left)


@given(st.lists(walks("left"), max_size=4), st.integers(0, 40))
def test_uncovered_says_whether_each_element_is_met_once(walks, numel):
    reached = [left for walk in walks for left in met(walk)]
    fault = uncovered(numel, walks)
    if sorted(reached) == list(range(numel)):
        assert fault is None
    elif any(left >= numel for left in reached):
        assert "are not all inside" in fault
    elif len(set(reached)) < len(reached):
        assert fault == "some of its elements are in more than one place"
    else:
        assert fault == f"{numel - len(reached)} of its {numel} elements are in no place"


@st.composite
def tilings(draw):
    """Walks that together meet each element of a tensor once: it is cut along an axis, some parts are cut again."""
    sizes = draw(st.sampled_from(FACTORS))
    found = []

    def tile(starts, extents, depth):
        cutting = [axis for axis, extent in enumerate(extents) if extent > 1]
        if depth and cutting and draw(st.booleans()):
            axis = draw(st.sampled_from(cutting))
            at = draw(st.integers(1, extents[axis] - 1))
            upper = (*extents[:axis], extents[axis] - at, *extents[axis + 1 :])
            tile(starts, (*extents[:axis], at, *extents[axis + 1 :]), depth - 1)
            tile((*starts[:axis], starts[axis] + at, *starts[axis + 1 :]), upper, depth - 1)
            return
        steps = [prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
        begin = sum(start * step for start, step in zip(starts, steps, strict=True))
        found.append(pair(begin, 0, [Loop(n, step, step) for n, step in zip(extents, steps, strict=True)]))

    tile((0,) * len(sizes), sizes, 3)
    return prod(sizes), found


@given(tilings(), st.data())
def test_uncovered_finds_a_gap_and_an_overlap_in_a_tiling(drawn, data):
    numel, walks = drawn
    assert uncovered(numel, walks) is None
    victim = data.draw(st.integers(0, len(walks) - 1))
    rest = walks[:victim] + walks[victim + 1 :]
    assert uncovered(numel, rest) == f"{walks[victim].numel} of its {numel} elements are in no place"
    inside = data.draw(st.sampled_from(sorted(met(walks[victim]))))
    assert uncovered(numel, [*walks, Pair(inside, 0, ())]) == "some of its elements are in more than one place"
    # the count is right, and still one is missing and another there twice
    others = sorted(set(range(numel)) - met(walks[victim]).keys())
    if walks[victim].numel == 1 and others:
        moved = [*rest, Pair(data.draw(st.sampled_from(others)), 0, ())]
        assert uncovered(numel, moved) == "some of its elements are in more than one place"


def test_uncovered_names_the_elements_that_lie_outside():
    assert uncovered(6, [Pair(4, 0, (Loop(4, 1, 1),))]) == "elements 4 to 7 are not all inside of its 6"
    assert uncovered(6, [Pair(-1, 0, (Loop(7, 1, 1),))]) == "elements -1 to 5 are not all inside of its 6"


def test_uncovered_has_nothing_to_prove_for_a_tensor_without_elements():
    assert uncovered(0, []) is None


@pytest.mark.parametrize(
    ("loops", "joined_loops"),
    [
        ([(2, 12, 12), (3, 4, 4), (4, 1, 1)], [(24, 1, 1)]),
        ([(4, 1, 1), (3, 4, 4), (2, 12, 12)], [(24, 1, 1)]),
        ([(3, 4, 4), (4, 1, 2)], [(3, 4, 4), (4, 1, 2)]),
        ([(3, 5, 4), (4, 1, 1)], [(3, 5, 4), (4, 1, 1)]),
        ([(3, 4, 5), (4, 1, 1)], [(3, 4, 5), (4, 1, 1)]),
        ([(1, 99, 98), (4, 1, 1)], [(4, 1, 1)]),
        ([(2, 6, 3), (2, 3, 6), (3, 1, 1)], [(2, 6, 3), (2, 3, 6), (3, 1, 1)]),
        ([], []),
    ],
)
def test_loops_that_are_one_on_both_sides_are_joined(loops, joined_loops):
    assert pair(5, 7, [Loop(*loop) for loop in loops]) == Pair(5, 7, tuple(Loop(*loop) for loop in joined_loops))


def test_clip_of_a_walk_that_is_all_inside_keeps_its_loops():
    walk = Pair(10, 3, (Loop(2, 6, 4), Loop(3, 1, 1)))
    assert list(clip(walk, 8, 30)) == [Pair(2, 3, walk.loops)]


def test_compose_of_axes_that_nest_keeps_long_walks():
    rows = pair(0, 0, [Loop(8, 6, 6), Loop(6, 1, 1)])  # 48 elements in a row
    columns = pair(0, 0, [Loop(8, 6, 1), Loop(6, 1, 8)])
    assert list(compose(rows, columns)) == [columns]
    half = pair(0, 0, [Loop(4, 12, 100), Loop(6, 1, 1)])  # every other row
    assert len(list(compose(half.inverse(), columns))) == 1
