"""Layouts against the plainest possible reference: whole numpy arrays that are transposed, cut and joined."""

from dataclasses import replace
from itertools import pairwise, product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mscvt.errors import MscvtError
from mscvt.layout.layout import Box, Layout, PlacedPart, Run, Segment, parse_axes, uncovered

DIMENSIONS = ("expert", "tensor")


@st.composite
def layouts(draw):
    """A layout of one to three segments, and how many ways each dimension cuts.

    The last axis is common to all segments; each of the others may be cut; parts divide one axis.
    """
    counts = {dimension: draw(st.integers(1, 3)) for dimension in DIMENSIONS}
    segments, parts, cuts = [], [], {}
    inner = draw(st.integers(1, 4))
    for number in range(draw(st.integers(1, 3))):
        names = [f"{letter}{number}" for letter in "abc"[: draw(st.integers(1, 3))]]
        cut_by = draw(st.permutations([*DIMENSIONS, None, None]))
        sizes = {}
        for name, dimension in zip(names, cut_by, strict=False):
            sizes[name] = draw(st.integers(1, 3)) * (counts[dimension] if dimension else 1)
            if dimension:
                cuts[name] = dimension
        sizes["inner"] = inner
        order = [*names, "inner"]
        first = len(parts)
        parts += draw(divided(order, sizes))
        shape = (tuple(names), ("inner",))
        segments.append(Segment(tuple((axis, sizes[axis]) for axis in order), shape, tuple(range(first, len(parts)))))
    return Layout(tuple(segments), tuple(parts), cuts), counts


@st.composite
def divided(draw, order, sizes):
    """Parts that divide one of the axes, each in a memory order of its own, some of them padding."""
    axis = draw(st.sampled_from(order))
    marks = sorted({0, sizes[axis], *draw(st.lists(st.integers(0, sizes[axis]), max_size=2))})
    parts = []
    for start, end in pairwise(marks):
        axes = draw(st.permutations(order))
        if end - start == 1 and draw(st.booleans()):
            axes = [name for name in axes if name != axis]  # one tensor for each index of the axis
        ends = sorted({len(axes), *draw(st.lists(st.integers(1, len(axes)), max_size=2))} if axes else set())
        groups = tuple(tuple(axes[a:b]) for a, b in zip([0, *ends], ends, strict=False))
        parts.append(PlacedPart(groups, {axis: (start, end - start)}, {}, draw(st.integers(0, 9)) == 0))
    return parts


def elements(box):
    """The offsets of a box's elements in its tensor, in the box's own order of axes."""
    offset = np.full(box.extents, box.offset)
    for number, run in enumerate(box.runs):
        steps = np.arange(run.extent) * box.strides[run.axis]
        offset += steps.reshape([-1 if n == number else 1 for n in range(len(box.runs))])
    return offset


def whole_tensor(layout, tensors):
    """The segments of the whole Megatron tensor, axes apart, filled from the parts' tensors."""
    filled = []
    for segment in layout.segments:
        sizes = dict(segment.axes)
        array = np.full(tuple(sizes.values()), -1)
        for number in segment.parts:
            part = layout.parts[number]
            mine = {axis: part.at.get(axis, (0, size)) for axis, size in segment.axes}
            where = tuple(slice(start, start + extent) for start, extent in mine.values())
            if part.is_padding:
                array[where] = 0
                continue
            theirs = [axis for group in part.groups for axis in group]
            missing = [axis for axis in sizes if axis not in theirs]
            apart = tensors[number].reshape([mine[axis][1] for axis in theirs] + [1] * len(missing))
            array[where] = apart.transpose([[*theirs, *missing].index(axis) for axis in sizes])
        filled.append(array)
    return filled


def cut(layout, array, segment, counts, index):
    for dim, (axis, size) in enumerate(segment.axes):
        if dimension := layout.cuts.get(axis):
            share = size // counts[dimension]
            array = array.take(range(index[dimension] * share, (index[dimension] + 1) * share), dim)
    return array


def places(layout, counts):
    for numbers in product(*(range(counts[dimension]) for dimension in layout.dimensions)):
        yield dict(zip(layout.dimensions, numbers, strict=True))


@given(layouts())
def test_pieces_make_the_same_tensor_as_cutting_the_whole_one(drawn):
    layout, counts = drawn
    tensors = {
        number: np.arange(prod(layout.part_shape(number))).reshape(layout.part_shape(number)) + 1000 * (number + 1)
        for number in range(len(layout.parts))
    }
    whole = whole_tensor(layout, tensors)
    for index in places(layout, counts):
        expected = np.concatenate(
            [
                cut(layout, array, segment, counts, index).ravel()
                for array, segment in zip(whole, layout.segments, strict=True)
            ]
        )
        found = np.full(prod(layout.shape(counts)), -1)
        assert len(found) == len(expected)
        for piece in layout.pieces(counts, index):
            target = elements(piece.megatron)
            if piece.huggingface is None:
                found[target] = 0
                continue
            axes = [run.axis for run in piece.megatron.runs]
            source = elements(piece.huggingface)
            theirs = [run.axis for run in piece.huggingface.runs]
            missing = [axis for axis in axes if axis not in theirs]
            source = source.reshape(source.shape + (1,) * len(missing))
            source = source.transpose([[*theirs, *missing].index(axis) for axis in axes])
            found[target] = tensors[piece.part].ravel()[source]
        assert (found == expected).all()


@given(layouts())
def test_pieces_of_all_ranks_cover_both_sides_exactly_once(drawn):
    layout, counts = drawn
    parts = {number: np.zeros(prod(layout.part_shape(number)), int) for number in range(len(layout.parts))}
    for index in places(layout, counts):
        filled = np.zeros(prod(layout.shape(counts)), int)
        for piece in layout.pieces(counts, index):
            assert (piece.huggingface is None) == layout.parts[piece.part].is_padding
            filled[elements(piece.megatron)] += 1
            if piece.huggingface is not None:
                assert piece.huggingface.numel == piece.megatron.numel
                parts[piece.part][elements(piece.huggingface)] += 1
        assert (filled == 1).all()
    for segment in layout.segments:
        cutting = {layout.cuts[axis] for axis, _ in segment.axes if axis in layout.cuts}
        replicas = prod(counts[dimension] for dimension in set(layout.dimensions) - cutting)
        for number in segment.parts:
            assert (parts[number] == (0 if layout.parts[number].is_padding else replicas)).all()


@given(layouts(), st.data())
def test_uncovered_finds_a_gap_and_an_overlap_wherever_they_are(drawn, data):
    layout, counts = drawn
    index = data.draw(st.sampled_from(list(places(layout, counts))))
    pieces = layout.pieces(counts, index)
    number = data.draw(st.integers(0, len(layout.segments) - 1))
    segment = layout.segments[number]
    sizes = [size // counts[layout.cuts[axis]] if axis in layout.cuts else size for axis, size in segment.axes]
    boxes = [piece.megatron for piece in pieces if piece.part in segment.parts]
    assert uncovered(sizes, boxes) is None
    victim = data.draw(st.integers(0, len(boxes) - 1))
    rest, box = boxes[:victim] + boxes[victim + 1 :], boxes[victim]
    assert uncovered(sizes, rest) == "some of its elements come from nowhere"
    assert uncovered(sizes, [*boxes, box]) == "some of its elements come from more than one place"
    axis = data.draw(st.integers(0, len(sizes) - 1))
    run = box.runs[axis]
    if run.extent > 1:
        start = data.draw(st.integers(0, 1))
        smaller = replace(run, start=run.start + start, extent=run.extent - 1)
        shrunk = replace(box, runs=(*box.runs[:axis], smaller, *box.runs[axis + 1 :]))
        assert uncovered(sizes, [*rest, shrunk]) == "some of its elements come from nowhere"
    if run.start:
        larger = replace(run, start=run.start - 1, extent=run.extent + 1)
        grown = replace(box, runs=(*box.runs[:axis], larger, *box.runs[axis + 1 :]))
        assert uncovered(sizes, [*rest, grown]) == "some of its elements come from more than one place"


def test_uncovered_refuses_boxes_over_other_axes():
    box = Box((Run("rows", 4, 0, 4),))
    assert uncovered([5], [box]) == "its parts do not agree on the axes of the tensor"
    assert uncovered([4], [box]) is None


def test_uncovered_has_nothing_to_prove_for_a_tensor_without_elements():
    assert uncovered([0, 3], []) is None
    assert uncovered([2, 3], []) == "some of its elements come from nowhere"


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        ("hidden", (("hidden",),)),
        ("(group slot channel) hidden", (("group", "slot", "channel"), ("hidden",))),
        ("hidden(head channel)", (("hidden",), ("head", "channel"))),
        ("  expert  ( part   ffn ) ", (("expert",), ("part", "ffn"))),
    ],
)
def test_parse_axes_reads_groups(pattern, groups):
    assert parse_axes(pattern) == groups


@pytest.mark.parametrize(
    "pattern", ["", " ", "()", "a a", "a (b a)", "a-b", "(a b", "a) b", "((a) b)", "a, b", "a (b-c)"]
)
def test_parse_axes_refuses_what_is_no_list_of_distinct_axes(pattern):
    with pytest.raises(MscvtError, match="layout pattern") as caught:
        parse_axes(pattern)
    assert repr(pattern) in str(caught.value)


@given(st.text("ab ()_-", max_size=12))
def test_parse_axes_gives_distinct_words_or_an_error(pattern):
    try:
        groups = parse_axes(pattern)
    except MscvtError:
        return
    axes = [axis for group in groups for axis in group]
    assert axes
    assert len(set(axes)) == len(axes)
    assert all(axis.isidentifier() for axis in axes)
    assert "".join(pattern.replace("(", " ").replace(")", " ").split()) == "".join(axes)


def qkv(groups=4, queries=3, channel=2, hidden=5):
    segment = Segment(
        (("group", groups), ("slot", queries + 2), ("channel", channel), ("hidden", hidden)),
        parse_axes("(group slot channel) hidden"),
        (0, 1, 2),
    )
    single = parse_axes("(group channel) hidden")
    return Layout(
        (segment,),
        (
            PlacedPart(parse_axes("(group slot channel) hidden"), {"slot": (0, queries)}, {}),
            PlacedPart(single, {"slot": (queries, 1)}, {}),
            PlacedPart(single, {"slot": (queries + 1, 1)}, {}),
        ),
        {"group": "tensor"},
    )


def test_shapes_follow_from_axes_and_cuts():
    layout = qkv()
    assert layout.shape({"tensor": 1}) == (40, 5)
    assert layout.shape({"tensor": 2}) == (20, 5)
    assert [layout.part_shape(part) for part in range(3)] == [(24, 5), (8, 5), (8, 5)]
    assert layout.dimensions == ("tensor",)


def test_pieces_of_a_rank_lie_where_its_groups_are():
    pieces = qkv().pieces({"tensor": 2}, {"tensor": 1})
    assert [piece.part for piece in pieces] == [0, 1, 2]
    assert [piece.megatron.offset for piece in pieces] == [0, 3 * 2 * 5, 4 * 2 * 5]
    # q has 3 x 2 rows for each of the two groups before, k and v have 2
    assert [piece.huggingface.offset for piece in pieces] == [2 * 3 * 2 * 5, 2 * 2 * 5, 2 * 2 * 5]
    assert pieces[1].megatron.strides == {"group": 50, "slot": 10, "channel": 5, "hidden": 1}
    assert pieces[1].huggingface.strides == {"group": 10, "channel": 5, "hidden": 1}


def test_within_takes_some_of_a_longer_axis():
    part = PlacedPart(parse_axes("(head rows) rank"), {}, {"rows": (3, 7)})
    segment = Segment((("head", 2), ("rows", 4), ("rank", 5)), parse_axes("(head rows) rank"), (0,))
    layout = Layout((segment,), (part,), {"head": "tensor"})
    assert layout.part_shape(0) == (14, 5)
    (piece,) = layout.pieces({"tensor": 2}, {"tensor": 1})
    assert piece.huggingface.offset == (7 + 3) * 5
    assert piece.huggingface.strides == {"head": 35, "rows": 5, "rank": 1}
    assert piece.huggingface.extents == (1, 4, 5)


def test_uneven_names_every_axis_that_its_cut_does_not_divide():
    layout = qkv(groups=6)
    assert list(layout.uneven({"tensor": 3})) == []
    assert list(layout.uneven({"tensor": 4})) == [("group", 6, "tensor", 4)]
