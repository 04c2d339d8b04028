"""Layouts against the plainest possible reference: whole numpy arrays of numbered elements, sliced and transposed.

A random rule divides spaces of named axes in two independent ways, once for the left and once for the right; which
element lies where follows from the numbers alone.
"""

from itertools import pairwise, product
from math import prod

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from walks import merged, numbered, offsets, places, shares_of

from mscvt.layout.layout import Layout, resolve
from mscvt.layout.pairs import uncovered
from mscvt.layout.rules import Rule, Source

DIMENSIONS = ("expert", "tensor")


class Spaces:
    """Spaces of axes, every element with a number of its own; `e` is an axis of all of them."""

    def __init__(self, spaces):
        self.sizes = {axis: size for space in spaces for axis, size in space.items()}
        self.arrays = dict(zip(map(tuple, spaces), numbered(*(tuple(space.values()) for space in spaces)), strict=True))

    def rows(self, space, order, axis, start, stop, **at):
        """What lies in rows that hold a range of an axis, in a memory order, at one index of some axes."""
        where = [slice(start, stop) if a == axis else slice(None) for a in space]
        array = self.arrays[space][tuple(where)]
        for name, index in at.items():
            array = array.take([index], list(space).index(name))
        return array.transpose([space.index(a) for a in order]).ravel()


@st.composite
def divided(draw, spaces, held):
    """Runs of rows that divide each space along an axis: (space, memory order, axis, start, stop)."""
    runs = []
    for space in spaces.arrays:
        axis = draw(st.sampled_from([a for a in space if a != held or len(space) == 1]))
        size = spaces.sizes[axis]
        marks = sorted({0, size, *draw(st.lists(st.integers(0, size), max_size=2))})
        runs += [(space, draw(st.permutations(space)), axis, *marks_of) for marks_of in pairwise(marks)]
    return draw(st.permutations(runs))


def pattern(run):
    _, order, axis, start, stop = run
    return "(" + " ".join(f"{a}[{start}:{stop}]" if a == axis else a for a in order) + ")"


@st.composite
def rules(draw):
    """A rule, its sizes, how many ways each dimension cuts, and what lies in its tensors."""
    counts = {dimension: draw(st.integers(1, 3)) for dimension in DIMENSIONS}
    shared = draw(st.integers(1, 3)) * draw(st.sampled_from([1, counts["expert"]]))
    space_list = []
    for number in range(draw(st.integers(1, 3))):
        names = draw(st.permutations([f"{letter}{number}" for letter in "ab"[: draw(st.integers(1, 2))]] + ["e"]))
        space_list.append({a: shared if a == "e" else draw(st.integers(1, 5)) for a in names})
    spaces = Spaces(space_list)
    key_holds = draw(st.booleans())
    left = draw(divided(spaces, "e" if key_holds else None))
    extents = {}  # axis -> the extents that its runs have
    for space, _, axis, start, stop in left:
        for a in space:
            extents.setdefault(a, set()).add(stop - start if a == axis else spaces.sizes[a])
    cuts = {}
    for axis in draw(st.permutations(sorted(extents))):
        dimension = draw(st.sampled_from([*DIMENSIONS, None]))
        beside = {cuts[a] for space in space_list if axis in space for a in space if a in cuts}
        if dimension and dimension not in beside and all(extent % counts[dimension] == 0 for extent in extents[axis]):
            cuts[axis] = dimension
    pieces = draw(divided(spaces, "e"))
    ends = sorted({len(pieces), *draw(st.lists(st.integers(1, len(pieces)), max_size=2))})
    groups = [pieces[a:b] for a, b in pairwise([0, *ends])]
    held = [frozenset("e") if draw(st.booleans()) else frozenset() for _ in groups]
    key = "w.{e}" if key_holds else "w"
    sources = tuple(Source(f"role{n}", " | ".join(map(pattern, group))) for n, group in enumerate(groups))
    layout = resolve(Rule(key, " | ".join(map(pattern, left)), sources, cuts), spaces.sizes, held)
    right = {}
    for number, (group, names) in enumerate(zip(groups, held, strict=True)):
        for at in product(*(range(shared) for _ in names)):
            fixed = dict(zip(names, at, strict=True))
            right[number, at] = np.concatenate([spaces.rows(*run, **fixed) for run in group])
    return layout, counts, spaces, left, right, key_holds


def expected_shares(layout, counts, spaces, left, key_holds):
    """Every share: the whole rows are cut, then stacked."""
    found = {}
    for index in places(layout, counts):
        place = dict(zip(layout.dimensions, index, strict=True))

        def local(axis, start, stop, place=place):
            dimension = layout.cuts.get(axis)
            if dimension is None:
                return range(start, stop)
            share = (stop - start) // counts[dimension]
            return range(start + place[dimension] * share, start + (place[dimension] + 1) * share)

        numbers = local("e", 0, spaces.sizes["e"]) if key_holds else [None]
        for number, held in enumerate(numbers):
            rows = []
            for space, order, axis, start, stop in left:
                array = spaces.arrays[space]
                for position, a in enumerate(space):
                    ours = local(a, *((start, stop) if a == axis else (0, spaces.sizes[a])))
                    array = array.take([held] if key_holds and a == "e" else list(ours), position)
                rows.append(array.transpose([space.index(a) for a in order]).ravel())
            found[index, (number,) if key_holds else ()] = np.concatenate(rows)
    return found


@given(rules())
def test_shares_are_the_whole_tensor_cut_and_the_way_back_gives_every_element(drawn):
    layout, counts, spaces, left, right, key_holds = drawn
    found = shares_of(layout, counts, right)
    expected = expected_shares(layout, counts, spaces, left, key_holds)
    assert found.keys() == expected.keys()
    for at, share in expected.items():
        assert found[at].shape == share.shape
        assert (found[at] == share).all()
    merged(layout, counts, found, right)


@given(rules())
def test_every_element_of_the_right_is_in_as_many_shares_as_are_replicas(drawn):
    layout, counts, spaces, _, right, _ = drawn
    dimension_of = {
        element: {layout.cuts[axis] for axis in space if axis in layout.cuts}
        for space, array in spaces.arrays.items()
        for element in array.ravel().tolist()
    }
    seen: dict[int, int] = {}
    for share in layout.shares(counts, places(layout, counts)):
        assert uncovered(prod(share.shape), [piece.pair for piece in share.pieces]) is None
        for piece in share.pieces:
            for element in right[piece.source, piece.held].ravel()[offsets(piece.pair)[1]].tolist():
                seen[element] = seen.get(element, 0) + 1
    for element, cutting in dimension_of.items():
        replicas = prod(counts[dimension] for dimension in set(layout.dimensions) - cutting)
        assert seen[element] == replicas


@given(rules())
def test_inverse_fills_the_right_from_the_left(drawn):
    layout, _, _, _, right, _ = drawn
    whole = shares_of(Layout(layout.left, layout.right, {}), {}, right)
    tensors = {(0, numbers): share for (_, numbers), share in whole.items()}
    inverse = layout.inverse()
    assert (inverse.left, inverse.right) == (layout.right, layout.left)
    found = set()
    for number in range(len(layout.right)):
        one = Layout((layout.right[number],), layout.left, {})
        for (_, at), tensor in shares_of(one, {}, tensors).items():
            assert (tensor == right[number, at]).all()
            found.add((number, at))
    assert found == right.keys()


QKV = Rule(
    "qkv.weight",
    "(group slot channel) hidden",
    (
        Source("q", "(group slot[:queries] channel) hidden"),
        Source("k", "(group slot[queries] channel) hidden"),
        Source("v", "(group slot[queries + 1] channel) hidden"),
    ),
    {"group": "tensor"},
)
QKV_SIZES = {"group": 4, "queries": 3, "slot": 5, "channel": 2, "hidden": 5}
NOTHING_HELD = [frozenset()] * 3


def test_shapes_follow_from_axes_and_cuts():
    layout = resolve(QKV, QKV_SIZES, NOTHING_HELD)
    assert layout.left[0].shape == (40, 5)
    assert [side.shape for side in layout.right] == [(24, 5), (8, 5), (8, 5)]
    assert [share.shape for share in layout.shares({"tensor": 2}, [(0,), (1,)])] == [(20, 5), (20, 5)]
    assert layout.dimensions == ("tensor",)


def test_pieces_of_a_rank_lie_where_its_groups_are():
    (share,) = resolve(QKV, QKV_SIZES, NOTHING_HELD).shares({"tensor": 2}, [(1,)])
    assert [piece.source for piece in share.pieces] == [0, 1, 2]
    assert [piece.pair.left for piece in share.pieces] == [0, 3 * 2 * 5, 4 * 2 * 5]
    # q has 3 x 2 rows for each of the two groups before, k and v have 2
    assert [piece.pair.right for piece in share.pieces] == [2 * 3 * 2 * 5, 2 * 2 * 5, 2 * 2 * 5]
    # k: two groups, 50 elements apart here and 10 there, of 10 elements in a row
    assert share.pieces[1].pair.loops == ((2, 50, 10), (10, 1, 1))


def test_uneven_names_every_axis_that_its_cut_does_not_divide():
    layout = resolve(QKV, {**QKV_SIZES, "group": 6}, NOTHING_HELD)
    assert list(layout.uneven({"tensor": 3})) == []
    assert list(layout.uneven({"tensor": 4})) == [("group", 6, "tensor", 4)]


def test_uneven_also_names_axes_that_the_key_holds_and_rows_together():
    rule = Rule("w{e}", "e (a b) c", (Source("r", "e (a b) c"),), {"e": "expert", "a b": "tensor"})
    layout = resolve(rule, {"e": 5, "a": 2, "b": 3, "c": 7}, [frozenset("e")])
    assert list(layout.uneven({"expert": 2, "tensor": 4})) == [("e", 5, "expert", 2), ("a b", 6, "tensor", 4)]
    assert list(layout.uneven({"expert": 5, "tensor": 3})) == []


def test_uneven_names_an_axis_by_the_part_of_it_that_rows_hold():
    rule = Rule("w", "a[:3] b | a[3:] b", (Source("r", "a b"),), {"a": "tensor"})
    layout = resolve(rule, {"a": 6, "b": 2}, [frozenset()])
    assert list(layout.uneven({"tensor": 2})) == [("a", 3, "tensor", 2), ("a", 3, "tensor", 2)]
