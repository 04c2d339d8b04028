"""Strided copies move exactly the right bits, whatever the strides."""

from math import prod
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mscvt.engine import transpose as transposition
from mscvt.engine.strided import copy_strided

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@pytest.fixture(params=["kernel", "numpy"])
def engine(request):
    """Run once with the library's kernel and once with the fallback."""
    if request.param == "kernel":
        yield
    else:
        with patch.object(transposition, "kernel_for", lambda width: None):
            yield


def random_bits(count, width):
    return torch.randint(0, 256, (count * width,), dtype=torch.uint8).view(BITS[width])


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize(("rows", "columns"), [(1, 70), (67, 129), (300, 1025), (1030, 77)])
def test_transposition_is_exact_between_parts_of_wider_tensors(engine, width, rows, columns):
    source = random_bits(rows * (columns + 5), width).view(rows, columns + 5)[:, 3 : 3 + columns]
    around = torch.full((columns, 2, rows), 7, dtype=BITS[width])
    copy_strided(around[:, 1], source.t())
    assert torch.equal(around[:, 1], source.t())
    assert bool((around[:, 0] == 7).all())


@given(
    extents=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    order=st.permutations([0, 1, 2, 3]),
    width=st.sampled_from([1, 2, 4, 8]),
)
def test_any_order_of_axes_is_copied_exactly(extents, order, width):
    order = [axis for axis in order if axis < len(extents)]
    wide = [extent * 5 for extent in extents]
    source = random_bits(prod(wide), width).view([wide[axis] for axis in order])
    source = source.permute([order.index(axis) for axis in range(len(extents))])
    target = torch.zeros(wide, dtype=BITS[width])
    copy_strided(target, source)
    assert torch.equal(target, source)
