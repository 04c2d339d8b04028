"""Walks as slices: they reach exactly the elements that the walk does."""

from itertools import product
from math import prod

from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import EP, PP, TP, description

from mscvt.description.description import Description
from mscvt.plan.shares import Shares
from mscvt.views.regions import region_text, spans_of


@st.composite
def boxes(draw):
    """A shape, and on each axis runs that are equally far apart."""
    shape, taken = [], []
    for _ in range(draw(st.integers(1, 3))):
        length, count = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        step = length + draw(st.integers(0, 2)) if count > 1 else 0
        start = draw(st.integers(0, 2))
        taken.append((start, length, count, step))
        shape.append(start + (count - 1) * step + length + draw(st.integers(0, 2)))
    return tuple(shape), taken


def elements(spans, shape):
    """The numbers of the elements that slices take."""
    axes = [[i for start, end in span.runs for i in range(start, end)] for span in spans]
    widths = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return sorted(sum(i * width for i, width in zip(at, widths, strict=True)) for at in product(*axes))


def walked(start, loops):
    return sorted(
        start + sum(i * s for i, (_, s) in zip(at, loops, strict=True))
        for at in product(*(range(extent) for extent, _ in loops))
    )


@settings(max_examples=60, deadline=None)
@given(boxes())
def test_slices_of_any_box_are_its_elements(box):
    shape, taken = box
    widths = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    loops = []
    for (_, length, count, step), width in zip(taken, widths, strict=True):
        loops += [(count, step * width), (length, width)]
    start = sum(first * width for (first, *_), width in zip(taken, widths, strict=True))
    spans = spans_of(shape, start, [loop for loop in loops if loop[0] > 1])
    assert spans is not None
    assert elements(spans, shape) == walked(start, loops)


def test_every_piece_of_a_model_has_slices_on_its_hugging_face_side():
    made: Description = description(**{TP: 2, PP: 2, EP: 2})
    shares, seen = Shares(made), 0
    for parameter in made.parameters:
        for cut in shares.of(parameter.layout):
            for piece in cut.share.pieces:
                shape = parameter.layout.right[piece.source].shape
                loops = [(extent, right) for extent, _, right in piece.pair.loops]
                spans = spans_of(shape, piece.pair.right, loops)
                assert elements(spans, shape) == walked(piece.pair.right, loops)
                seen += 1
    assert seen > 50


def test_slices_are_written_as_few_as_they_can_be():
    assert region_text((8, 6), 0, [(48, 1)]) == ""
    assert region_text((8, 6), 3, [(8, 6), (3, 1)]) == "[:, 3:6]"
    assert region_text((40, 2), 0, [(5, 16), (4, 1)]) == "[0:2 and 4 more, each 8 on, :]"
    assert region_text((6, 6), 0, [(4, 7)]) == "[in several pieces]"
