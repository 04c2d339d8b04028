"""Strided copies move exactly the right bits, whatever the strides."""

from math import prod
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mscvt.engine import transpose as transposition
from mscvt.engine.strided import copy_strided

BITS = {1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}
RANDOM = np.random.default_rng(0)


@pytest.fixture(params=["kernel", "numpy"])
def engine(request):
    """Run once with the library's kernel, for the smallest matrices too, and once with the fallback."""
    how = ("_WORTH_LOADING", 0) if request.param == "kernel" else ("kernel_for", lambda width: None)
    with patch.object(transposition, *how):
        yield


def random_bits(count, width):
    return RANDOM.integers(0, 256, count * width, np.uint8).view(BITS[width])


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize(("rows", "columns"), [(1, 70), (67, 129), (300, 1025), (1030, 77)])
def test_transposition_is_exact_between_parts_of_wider_tensors(engine, width, rows, columns):
    source = random_bits(rows * (columns + 5), width).reshape(rows, columns + 5)[:, 3 : 3 + columns]
    around = np.full((columns, 2, rows), 7, BITS[width])
    copy_strided(around[:, 1], source.T)
    assert np.array_equal(around[:, 1], source.T)
    assert (around[:, 0] == 7).all()


@given(
    extents=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    order=st.permutations([0, 1, 2, 3]),
    width=st.sampled_from([1, 2, 4, 8]),
)
def test_any_order_of_axes_is_copied_exactly(extents, order, width):
    order = [axis for axis in order if axis < len(extents)]
    wide = [extent * 5 for extent in extents]
    source = random_bits(prod(wide), width).reshape([wide[axis] for axis in order])
    source = source.transpose([order.index(axis) for axis in range(len(extents))])
    target = np.zeros(wide, BITS[width])
    copy_strided(target, source)
    assert np.array_equal(target, source)
