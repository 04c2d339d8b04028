"""Files of `torch.save` are read exactly, whatever else is in them and however their records lie."""

import argparse
import datetime
import enum
import io
import pathlib
import random
import types
from collections import Counter, OrderedDict, defaultdict, deque
from functools import partial

import numpy as np
import pytest
import torch
from torch_files import BASE, TENSORS, expected, read, save

from mscvt.errors import MscvtError
from mscvt.formats.torch_zip.reader import load, tensors_in
from mscvt.formats.torch_zip.standins import Global, Recorded


class Kind(enum.Enum):
    AUTO = 5


class Number(enum.IntEnum):
    TWO = 2


class Config:
    def __init__(self):
        self.hidden_size = 7


class Slotted:
    __slots__ = ("size",)

    def __init__(self):
        self.size = 7


class Words(list):
    """A class of its own, which pickles as a call, attributes and items."""


class ByName(enum.Enum):
    """Pickles its members as Python 3.11 and 3.12 do some."""

    FLASH = 1

    def __reduce_ex__(self, protocol):
        return getattr, (type(self), self.name)


def training_state(protocol):
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    return {
        "optimizer": optimizer.state_dict(),
        "by_dtype": {(torch.bfloat16, torch.float32): {0: torch.ones(3)}},
        "random": [random.getstate(), np.random.get_state(), torch.get_rng_state(), torch.Generator()],
        "numpy": [np.float64(1.5), np.arange(4), np.random.default_rng(3), np.dtype("int64")],
        "counted": Counter("aab"),
        "queue": deque([1, 2]),
        "words": Words(["a"]),
        "complex": torch.ones(2, dtype=torch.complex64),
        "sparse": torch.eye(3).to_sparse(),
        "quantized": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "meta": torch.empty(3, device="meta"),
        "storage": torch.ones(3).untyped_storage(),
        "typed_storage": torch.storage.TypedStorage(3, dtype=torch.float32),
    } | ({} if protocol < 2 else {"bytes": io.BytesIO(b"fp8")})


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "make", [dict, OrderedDict, lambda items: defaultdict(None, items)], ids=["dict", "ordered", "default"]
)
def test_tensors_are_read_exactly_beside_all_that_training_keeps(make, protocol, tmp_path):
    model = make(TENSORS)
    if isinstance(model, OrderedDict):
        model._metadata = {"": {"version": 1}}  # as Module.state_dict() sets it
    path = save(tmp_path / "x.pt", {**training_state(protocol), "model": model}, pickle_protocol=protocol)
    state = load(path)
    assert type(state["model"]) is dict
    assert read(path, state["model"]) == expected(TENSORS)


PLAIN = {
    "none": None,
    "numbers": [True, False, 0, 1, 255, 256, 65536, -1, 2**31, 2**40, -(2**70), 1.5, float("inf")],
    "text": ["", "a", "ä", "x" * 300, "\ud800", "\x1b[2J"],
    "bytes": [b"", b"a", b"\xff" * 300],
    "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    "set": {1, 2},
    "frozenset": frozenset({("a", 1)}),
    "size": torch.Size([2, 3]),
    "nested": {"a": {"b": [{}, []]}},
    "keys": {1: "a", None: "b", 2.5: "c", False: "d", b"e": "f", ("g", 1): "h"},
}


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_plain_values_are_read_as_they_are(protocol, tmp_path):
    state = load(save(tmp_path / "x.pt", PLAIN | {"args": argparse.Namespace(**PLAIN)}, pickle_protocol=protocol))
    args = state.pop("args")
    assert state == PLAIN
    assert (type(args), args.kind, args.attributes) == (Recorded, "argparse.Namespace", PLAIN)
    assert [type(item) for item in state["numbers"]] == [type(item) for item in PLAIN["numbers"]]


PATH = pathlib.PurePosixPath("/data/x")
HERE = f"{__name__}."
OBJECTS = {
    "enum": (Kind.AUTO, f"{HERE}Kind", (5,), {}),
    "int_enum": (Number.TWO, f"{HERE}Number", (2,), {}),
    "path": (PATH, f"{type(PATH).__module__}.PurePosixPath", PATH.__reduce__()[1], {}),
    "simple": (types.SimpleNamespace(a=1), "types.SimpleNamespace", (), {"a": 1}),
    "time": (datetime.timedelta(1, 2), "datetime.timedelta", (1, 2, 0), {}),
    "object": (Config(), f"{HERE}Config", (), {"hidden_size": 7}),
    "slotted": (Slotted(), f"{HERE}Slotted", (), {"size": 7}),
    "words": (Words(["a"]), f"{HERE}Words", (), {}),
    "complex": (3j, "builtins.complex", (0.0, 3.0), {}),
    "device": (torch.device("cpu"), "torch.device", ("cpu",), {}),
}


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_objects_are_read_as_what_they_were_made_from(name, protocol, tmp_path):
    value, kind, arguments, attributes = OBJECTS[name]
    found = load(save(tmp_path / "x.pt", [value], pickle_protocol=protocol))[0]
    assert (type(found), found.kind, found.arguments, found.attributes) == (Recorded, kind, arguments, attributes)


@pytest.mark.parametrize("protocol", [1, 2, 4])
def test_names_are_read_as_names(protocol, tmp_path):
    state = [torch.bfloat16, torch.nn.init.normal_, ByName.FLASH, Config]
    found = load(save(tmp_path / "x.pt", state, pickle_protocol=protocol))
    assert all(type(name) is Global for name in found)
    assert list(map(str, found)) == ["torch.bfloat16", "torch.nn.init.normal_", f"{HERE}ByName.FLASH", f"{HERE}Config"]


def test_partial_function_is_read_without_being_made(tmp_path):
    state = {"init": partial(torch.nn.init.normal_, mean=0.0, std=0.02)}
    assert load(save(tmp_path / "x.pt", state))["init"].kind == "functools.partial"


def test_protocol_0_is_named_where_it_holds_tensors(tmp_path):
    path = save(tmp_path / "x.pt", {"a": BASE}, pickle_protocol=0)
    with pytest.raises(MscvtError, match=r"x\.pt: its pickle has protocol 0, which can't hold tensors") as caught:
        load(path)
    assert "pickle_protocol" in caught.value.hint
    assert load(save(tmp_path / "y.pt", {"a": [1, "b", 2.5, None, True, 2**70]}, pickle_protocol=0)) == {
        "a": [1, "b", 2.5, None, True, 2**70]
    }


NO_WEIGHTS = {
    "complex": torch.ones(2, dtype=torch.complex64),
    "complex_of_no_storage_class": torch.ones(2, dtype=torch.complex32),
    "negated": torch.complex(torch.ones(2), torch.ones(2)).conj().imag,
    "sparse": torch.eye(3).to_sparse(),
    "quantized": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "meta": torch.empty(3, device="meta"),
    "storage": torch.ones(3).untyped_storage(),
    "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "transposed": torch.ones(3, 5).T,
    "expanded": torch.ones(1).expand(3, 4),
    "every_second": BASE[::2],
}


@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_weight_that_is_no_plain_tensor_is_refused_by_name(name, tmp_path):
    path = save(tmp_path / "x.pt", {"model": {"the_weight": NO_WEIGHTS[name]}, "other": NO_WEIGHTS[name]})
    state = load(path)
    with pytest.raises(MscvtError, match=r"x\.pt: .*'the_weight'"):
        list(tensors_in(path, 0, state["model"], "the model"))


def test_negated_tensor_would_have_other_values_than_its_bytes(tmp_path):
    tensor = NO_WEIGHTS["negated"]
    assert tensor.is_neg()
    assert torch.load(save(tmp_path / "x.pt", tensor), weights_only=True).is_neg()
    assert type(load(tmp_path / "x.pt")) is Recorded
