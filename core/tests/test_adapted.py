"""Merging where it is read: any region, of the same bytes as the whole, summed rank by rank and rounded once."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mscvt.engine.blocks import move
from mscvt.errors import MscvtError
from mscvt.tensors.adapted import AdaptedMatrix, AdaptedSource, LowRank
from mscvt.tensors.computing import as_bits, values_of
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.merging import merge
from mscvt.testing.in_memory import in_memory

DTYPES = {"BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "U8": torch.uint8}


SCALES = (0.7, 2.0, -0.5)


def expected(weight, left, right, scale):
    """The merge, written out: each product and each sum is rounded to f32, the result to the weight's type."""
    total = torch.zeros(weight.shape)
    for rank in range(left.shape[2]):
        total = total + left[:, :, rank, None].float() * right[:, rank, None].float()
    return (weight.float() + total * scale).to(weight.dtype)


def bits(tensor):
    """Elements as integers, of which zeros of different signs differ."""
    return tensor.view(torch.int16 if tensor.dtype.itemsize == 2 else torch.int32)


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
    weight, left = weight.to(data.draw(st.sampled_from([torch.bfloat16, torch.half, torch.float]))), left.bfloat16()
    right = data.draw(st.sampled_from([right, right.bfloat16(), right.half(), (right * 1e-38).bfloat16()]))
    scale = data.draw(st.sampled_from(SCALES))
    matrix = AdaptedMatrix(in_memory(weight.flatten()), left.flatten(), right.flatten(), rank, shape[2], scale)
    whole = expected(weight, left, right, scale)
    offset, extents, strides = data.draw(regions(shape))
    dtype = data.draw(st.sampled_from([weight.dtype, torch.double]))
    target = torch.empty(extents[::-1], dtype=dtype).permute(tuple(range(len(extents)))[::-1])
    part = whole.as_strided(extents, strides, offset)
    with (
        patch("mscvt.tensors.merging._MOST", (4, 8)),
        patch("mscvt.tensors.merging._GRAIN", 4),
        patch("mscvt.tensors.merging._keeps_order", return_value=False),  # too small to be tried
        patch("mscvt.tensors.adapted._PART", 4),
    ):
        assert torch.equal(values_of(matrix, offset, extents, strides), part)
        matrix.write(as_bits(target), in_memory(target).dtype, offset, strides, move)
    assert torch.equal(target, part.to(target.dtype))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("rank", [1, 5, 300])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.half, torch.float])
@patch("mscvt.tensors.merging._MOST", (32, 64))
def test_merge_is_the_same_whatever_a_product_of_matrices_does(kind, rank, scale):
    random = torch.Generator().manual_seed(rank)
    weight, left, right = (torch.randn(size, generator=random) for size in ((70, 90), (70, rank), (rank, 90)))
    weight[::9], left[::4], left, weight = -0.0, 0.0, left / 9, weight.to(kind)
    for dtype in (torch.float, torch.bfloat16):
        left, right, found = left.to(dtype), right.to(dtype), torch.empty_like(weight)
        whole = expected(weight[None], left[None], right[None], scale)[0]
        merge(weight, found, left.t(), right, scale)
        assert torch.equal(bits(found), bits(whole))
        with patch("mscvt.tensors.merging._keeps_order", return_value=False):
            merge(weight, found, left.t(), right, scale)
        assert torch.equal(bits(found), bits(whole))


class Memory:
    """A source of tensors in memory."""

    files = ()

    def __init__(self, **tensors):
        self.held = tensors
        names = {dtype: name for name, dtype in DTYPES.items()}
        self.tensors = {name: TensorInfo(names[t.dtype], tuple(t.shape), 0, 0) for name, t in tensors.items()}

    def tensor(self, name):
        return in_memory(self.held[name].flatten())

    def close(self):
        self.held = {}


def test_source_shows_weights_with_factors_added_and_no_factors():
    random = torch.Generator().manual_seed(0)
    w, b, a = (torch.randn(size, generator=random).bfloat16() for size in ((5, 7), (5, 2), (2, 7)))
    source = Memory(w=w, other=w, b=b, a=a)
    adapted = AdaptedSource(source, {"w": LowRank(("b",), ("a",), 2, 2.0)}, source)
    assert adapted.tensors.keys() == {"w", "other"}
    read = {name: values_of(adapted.tensor(name), 0, (5, 7), (7, 1)) for name in adapted.tensors}
    assert torch.equal(read["w"], expected(w[None], b[None], a[None], 2.0)[0])
    assert torch.equal(read["other"], w)
    adapted.close()
    assert source.held == {}


def test_zero_that_is_added_to_nothing_is_positive_as_in_a_product_of_matrices():
    w, b, a = torch.tensor([[-0.0]]), torch.tensor([[0.0]]), torch.tensor([[-1.0]])
    source = Memory(w=w, b=b, a=a)
    adapted = AdaptedSource(source, {"w": LowRank(("b",), ("a",), 1, 1.0)}, source)
    assert not values_of(adapted.tensor("w"), 0, (1,), (1,)).signbit().any()


@pytest.mark.filterwarnings("error")
def test_what_is_too_large_is_infinite_without_a_warning():
    left, right = torch.tensor([[1e30], [1e30]]), torch.tensor([[1e30], [-1e30]])
    merge(torch.zeros(1, 1), found := torch.empty(1, 1), left, right, 1.0)
    assert found.isnan().all()
    merge(torch.zeros(1, 1), found, left[:1], right[:1], 1.0)
    assert found.isposinf().all()


def test_weight_of_double_precision_is_merged_in_it():
    w, b, a = torch.full((1, 1), 1 + 2.0**-40, dtype=torch.float64), torch.ones(1, 1), torch.ones(1, 1)
    adapted = AdaptedSource(source := Memory(w=w, b=b, a=a), {"w": LowRank(("b",), ("a",), 1, 1.0)}, source)
    assert values_of(adapted.tensor("w"), 0, (1,), (1,)).item() == 2 + 2.0**-40


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
