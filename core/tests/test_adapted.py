"""Merging where it is read: any region, of the same bytes as the whole, summed rank by rank and rounded once."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mscvt.errors import MscvtError
from mscvt.tensors.adapted import AdaptedMatrix, AdaptedSource, LowRank
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.sources import PlainTensor

DTYPES = {"BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "U8": torch.uint8}


def expected(weight, left, right, scale):
    """The merge, written out: each product and each sum is rounded to f32, the result to the weight's type."""
    total = torch.zeros(weight.shape)
    for rank in range(left.shape[2]):
        total = total + left[:, :, rank, None].float() * right[:, rank, None].float()
    return (weight.float() + total * scale).to(weight.dtype)


@st.composite
def regions(draw, shape):
    """A region of a tensor: steps of elements, columns, rows and matrices, and of any other width."""
    batch, rows, columns = shape
    numel = batch * rows * columns
    offset = draw(st.integers(0, numel - 1))
    left, extents, strides = numel - 1 - offset, [], []
    for _ in range(draw(st.integers(0, 4))):
        stride = draw(st.sampled_from([1, 2, 3, columns, 2 * columns, columns + 1, rows * columns]))
        extent = draw(st.integers(1, left // stride + 1))
        left -= (extent - 1) * stride
        extents.append(extent)
        strides.append(stride)
    return offset, tuple(extents), tuple(strides)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_region_is_the_same_part_of_the_whole_merge(data):
    shape = tuple(data.draw(st.integers(1, most)) for most in (3, 6, 7))
    rank = data.draw(st.integers(1, 4))
    random = torch.Generator().manual_seed(rank)
    weight, left, right = (
        torch.randn(size, generator=random) for size in (shape, (shape[0], shape[1], rank), (shape[0], rank, shape[2]))
    )
    weight, left = weight.bfloat16(), left.bfloat16()
    right = data.draw(st.sampled_from([right, right.bfloat16(), right.half(), (right * 1e-38).bfloat16()]))
    matrix = AdaptedMatrix(PlainTensor(weight.flatten()), left.flatten(), right.flatten(), rank, shape[2], 0.7)
    whole = expected(weight, left, right, 0.7)
    offset, extents, strides = data.draw(regions(shape))
    with patch("mscvt.tensors.adapted._TILE", 8):
        part = matrix.region(offset, extents, strides)
    assert torch.equal(part, whole.as_strided(extents, strides, offset))


class Memory:
    """A source of tensors in memory."""

    files = ()

    def __init__(self, **tensors):
        self.held = tensors
        names = {dtype: name for name, dtype in DTYPES.items()}
        self.tensors = {name: TensorInfo(names[t.dtype], tuple(t.shape), 0, 0) for name, t in tensors.items()}

    def tensor(self, name):
        return PlainTensor(self.held[name].flatten())

    def close(self):
        self.held = {}


def test_source_shows_weights_with_factors_added_and_no_factors():
    random = torch.Generator().manual_seed(0)
    w, b, a = (torch.randn(size, generator=random).bfloat16() for size in ((5, 7), (5, 2), (2, 7)))
    source = Memory(w=w, other=w, b=b, a=a)
    adapted = AdaptedSource(source, {"w": LowRank(("b",), ("a",), 2, 2.0)}, source)
    assert adapted.tensors.keys() == {"w", "other"}
    read = {name: adapted.tensor(name).region(0, (5, 7), (7, 1)) for name in adapted.tensors}
    assert torch.equal(read["w"], expected(w[None], b[None], a[None], 2.0)[0])
    assert torch.equal(read["other"], w)
    adapted.close()
    assert source.held == {}


def test_zero_that_is_added_to_nothing_is_positive_as_in_a_product_of_matrices():
    w, b, a = torch.tensor([[-0.0]]), torch.tensor([[0.0]]), torch.tensor([[-1.0]])
    source = Memory(w=w, b=b, a=a)
    adapted = AdaptedSource(source, {"w": LowRank(("b",), ("a",), 1, 1.0)}, source)
    assert not adapted.tensor("w").region(0, (1,), (1,)).signbit().any()


def test_weight_of_double_precision_is_merged_in_it():
    w, b, a = torch.full((1, 1), 1 + 2.0**-40, dtype=torch.float64), torch.ones(1, 1), torch.ones(1, 1)
    adapted = AdaptedSource(source := Memory(w=w, b=b, a=a), {"w": LowRank(("b",), ("a",), 1, 1.0)}, source)
    assert adapted.tensor("w").region(0, (1,), (1,)).item() == 2 + 2.0**-40


@pytest.mark.parametrize(
    ("changed", "fragment"),
    [
        ({"w": torch.zeros(5, 6, dtype=torch.bfloat16)}, "w [5, 6] does not fit its factors [5, 2] and [2, 7]"),
        ({"w": torch.zeros(5, 7, dtype=torch.uint8)}, "w is U8, and factors are added to floating-point numbers alone"),
    ],
)
def test_what_factors_can_not_be_added_to_is_refused(changed, fragment):
    tensors = {"w": torch.zeros(5, 7), "b": torch.zeros(5, 2), "a": torch.zeros(2, 7), **changed}
    source = Memory(**tensors)
    with pytest.raises(MscvtError) as caught:
        AdaptedSource(source, {"w": LowRank(("b",), ("a",), 2, 1.0)}, source)
    assert fragment in caught.value.message
