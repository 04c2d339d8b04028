"""Pickles of tensors that have no bytes yet: byte for byte what `torch.save` makes of real ones."""

import io
import random
import zipfile
from argparse import Namespace
from collections import OrderedDict

import pytest
import torch
from torch_shards import tensors, unbacked

from mscvt.formats.torch_zip.pickler import EmptyTensor, pickled
from mscvt.tensors.info import TORCH_NAMES

DTYPES = {name: getattr(torch, torch_name) for name, torch_name in TORCH_NAMES.items()}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def torch_pickle(state, file=None):
    file = file or io.BytesIO()
    torch.save(state, file)
    with zipfile.ZipFile(file) as archive:
        return archive.read("archive/data.pkl")


def empty(state, seen=None):
    """The same state with `EmptyTensor` in the place of tensors, whose storages are numbered as torch numbers them."""
    seen = {} if seen is None else seen
    if isinstance(state, torch.Tensor):
        if id(state) not in seen:
            seen[id(state)] = EmptyTensor(NAMES[state.dtype], tuple(state.shape), len(seen))
        return seen[id(state)]
    if isinstance(state, dict):
        return type(state)((key, empty(value, seen)) for key, value in state.items())
    return [empty(value, seen) for value in state] if isinstance(state, list) else state


def assert_same(state, file=None):
    ours, theirs = pickled(empty(state)), torch_pickle(state, file)
    assert len(ours) == len(theirs)
    assert ours == theirs


@pytest.mark.parametrize("dtype", TORCH_NAMES)
def test_pickle_is_what_torch_makes_of_a_tensor(dtype):
    (tensor,) = tensors([dtype]).values()
    assert_same(OrderedDict(a=tensor))


@pytest.mark.parametrize("before", [0, 1, 2, 5, 90, 200, 240, *range(249, 258), 300])
def test_pickle_is_what_torch_makes_of_many_tensors_behind_so_many_values(before):
    """Numbers have one byte up to 255, and so have those of the names that all tensors share."""
    values = [f"value {number}" for number in range(before)]
    one = {f"layers.{number}.weight": torch.empty(3, 5) for number in range(60)}
    two = {f"layers.{number}.bias": torch.empty(5 + number % 2, dtype=torch.bfloat16) for number in range(130)}
    assert_same({"values": values, "args": Namespace(a=1, b="b"), "model0": one, "model1": two})


def test_pickle_is_what_torch_makes_of_ten_thousand_tensors_of_all_dtypes_and_numbers_of_dimensions():
    chance = random.Random(0)
    shapes = [(), (0,), (1,), (255,), (256,), (2, 3), (1, 0), (2, 1, 3), (1, 2, 3, 2), (1, 1, 2, 1, 2)]
    model = {
        f"decoder.layers.{number}.weight": torch.empty(chance.choice(shapes), dtype=chance.choice([*DTYPES.values()]))
        for number in range(10_000)
    }
    assert len(pickled(empty(model))) > 1 << 20
    assert_same(model)


def test_pickle_is_what_torch_makes_of_tensors_of_any_size(tmp_path):
    sizes = [255, 256, 65535, 65536, (1 << 31) - 1, 1 << 31, 1 << 33]
    whole = [unbacked(size) for size in sizes for _ in range(30)]
    rows = [unbacked(2 * size).view(2, size) for size in sizes for _ in range(3)]
    typed = [unbacked(1 << 34).view(dtype).view(-1, 1 << 16) for dtype in DTYPES.values() for _ in range(3)]
    with torch.serialization.skip_data():
        assert_same(dict(enumerate([*whole, *rows, *typed])), tmp_path / "archive.pt")


@pytest.mark.parametrize("before", [0, 300])
def test_pickle_is_what_torch_makes_of_texts_and_tensors_that_stand_there_again(before):
    values = [f"value {number}" for number in range(before)]
    tensors = [torch.empty(2, 3) for _ in range(50)]
    again = {"cpu": tensors[1], "storage": tensors[20], "Grüße \ud800": "cpu", "": "storage", "long": "x" * 70_000}
    model = {f"{number}.weight": tensor for number, tensor in enumerate(tensors)}
    digits = [str(number) for number in range(12)]  # as keys of storages are, but no objects that stand there again
    assert_same({"storage": values, "args": digits[::2], "model": model, "again": again, "digits": digits})


@pytest.mark.parametrize("count", [0, 1, 2, 999, 1000, 1001, 1002, 2000, 2001])
def test_pickle_is_what_torch_makes_of_as_many_tensors_as_are_set_at_once(count):
    assert_same({"model": {f"{number}.weight": torch.empty(2) for number in range(count)}, "iteration": 1})
