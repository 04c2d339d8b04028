"""Files of `torch.save` that nobody vouches for: `.bin` and `.pt` are read right, or refused with nothing run."""

import argparse
import builtins
import contextlib
import io
import os
import pickle
import sys
import types
from collections import OrderedDict, defaultdict
from enum import Enum
from unittest import mock

import numpy as np
import pytest
import torch

from mscvt.errors import MscvtError
from mscvt.formats.huggingface.reader import HuggingFaceSource
from mscvt.formats.megatron_torch.reader import MegatronSource
from mscvt.formats.torch_zip.reader import load
from mscvt.parallel.grid import Rank
from mscvt.tensors.computing import values_of

RANK = Rank(0, 0, 0)
WEIGHTS = {
    "a": torch.arange(15, dtype=torch.float32).reshape(3, 5).to(torch.bfloat16),
    "b": torch.arange(100, 107, dtype=torch.float32),
}


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def save(path, state, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path, **options)
    return path


def megatron(folder, state):
    """A Megatron checkpoint of one rank with whatever is given in its file."""
    save(folder / "iter_0000007" / "mp_rank_00" / "model_optim_rng.pt", state)
    (folder / "latest_checkpointed_iteration.txt").write_text("7")
    return folder


def opened(folder):
    source = MegatronSource(folder)
    source.open_ranks([RANK], 1, 1)
    return source


def elements(source, name):
    info = source.tensors[name]
    return bytes(values_of(source.tensor(name), 0, (info.numel,), (1,)).view(torch.uint8).numpy())


def expected(tensor):
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


ATTACKS = {
    "os_system": lambda marker: Call(os.system, f"touch {marker}"),
    "builtins_eval": lambda marker: Call(eval, f"open({str(marker)!r}, 'w')"),
    "builtins_exec": lambda marker: Call(exec, f"open({str(marker)!r}, 'w')"),
    "builtins_open": lambda marker: Call(builtins.open, str(marker), "w"),
    "builtins_getattr": lambda marker: Call(getattr, os, "system"),
    "io_open": lambda marker: Call(io.FileIO, str(marker), "w"),
    "numpy_save": lambda marker: Call(np.save, str(marker) + ".npy", np.zeros(2)),
    "torch_save": lambda marker: Call(torch.save, {}, str(marker)),
    "torch_load": lambda marker: Call(torch.load, str(marker)),
    "torch_hub": lambda marker: Call(torch.hub.download_url_to_file, "file:///etc/passwd", str(marker)),
    "import": lambda marker: Call(__import__, "os"),
    "class_instance": lambda marker: argparse.ArgumentParser("x"),
    "module_function": lambda marker: OrderedDict(x=print),
}
INERT = {"class_instance", "module_function"}
"""Nothing that could do harm: stood in for, and not called either."""


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("where", ["value", "args", "beside", "key"])
def test_code_in_a_shard_is_never_run(name, where, tmp_path):
    marker, forbidden = tmp_path / "marker", False
    try:
        attack = ATTACKS[name](marker)
        state = {"args": argparse.Namespace(num_layers=2), "model": dict(WEIGHTS)}
        if where == "value":
            state["model"]["c"] = attack
        elif where == "args":
            state["args"].extra = attack
        elif where == "key":
            state["model"][(attack,)] = WEIGHTS["a"]
        else:
            state["optimizer"] = [attack]
        folder = megatron(tmp_path / "mg", state)
    except (pickle.PicklingError, TypeError, AttributeError):
        forbidden = True
        folder = megatron(tmp_path / "mg", {"args": Call(os.system, f"touch {marker}"), "model": {}})
    if name in INERT and where in ("args", "beside") and not forbidden:
        assert opened(folder).tensors.keys() == {(RANK, "model", key) for key in WEIGHTS}
    else:
        with pytest.raises(MscvtError, match=r"model_optim_rng\.pt"):
            opened(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["mg"]


@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - INERT))
def test_code_in_a_bin_file_is_never_run(name, tmp_path):
    marker = tmp_path / "marker"
    path = tmp_path / "hf" / "pytorch_model.bin"
    try:
        save(path, WEIGHTS | {"c": ATTACKS[name](marker)})
    except (pickle.PicklingError, TypeError, AttributeError):
        save(path, WEIGHTS | {"c": Call(os.system, f"touch {marker}")})
    with pytest.raises(MscvtError, match=r"pytorch_model\.bin") as caught:
        HuggingFaceSource(tmp_path / "hf")
    assert "code, not weights" in caught.value.message
    assert "Nothing of it was run" in caught.value.hint
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_code_is_not_run_at_any_pickle_protocol(protocol, tmp_path):
    marker = tmp_path / "marker"
    path = save(tmp_path / "x.pt", {"a": Call(os.system, f"touch {marker}")}, pickle_protocol=protocol)
    with pytest.raises(MscvtError, match=r"x\.pt.*code, not weights"):
        load(path)
    assert not marker.exists()


def cyclic():
    model = {"a": WEIGHTS["a"]}
    model["self"] = model
    return model


ARGS = argparse.Namespace(num_layers=2)
STATES = {
    "list": [1, 2],
    "tensor": WEIGHTS["a"],
    "args_are_list": {"args": ["num_layers", 2], "model": WEIGHTS},
    "no_model": {"args": ARGS},
    "model_is_list": {"args": ARGS, "model": [WEIGHTS["a"]]},
    "model_is_null": {"args": ARGS, "model": None},
    "model_is_cyclic": {"args": ARGS, "model": cyclic()},
    "key_is_number": {"args": ARGS, "model": {1: WEIGHTS["a"]}},
    "key_is_tuple": {"args": ARGS, "model": {("a", ("b",)): WEIGHTS["a"]}},
    "key_has_control_characters": {"args": ARGS, "model": {"\x1b[2J": WEIGHTS["a"]}},
    "key_is_lone_surrogate": {"args": ARGS, "model": {"\ud800": WEIGHTS["a"]}},
    "value_is_number": {"args": ARGS, "model": {"a": 1.5}},
    "tensor_is_complex": {"args": ARGS, "model": {"a": torch.zeros(2, dtype=torch.complex64)}},
    "tensor_is_transposed": {"args": ARGS, "model": {"a": WEIGHTS["a"].T}},
    "tensor_is_expanded": {"args": ARGS, "model": {"a": torch.zeros(1).expand(3, 4)}},
    "tensor_is_sparse": {"args": ARGS, "model": {"a": torch.eye(3).to_sparse()}},
    "tensor_is_on_meta": {"args": ARGS, "model": {"a": torch.empty(3, device="meta")}},
}


@pytest.mark.parametrize("name", STATES)
def test_shard_that_holds_something_else_is_refused(name, tmp_path):
    with pytest.raises(MscvtError, match=r"model_optim_rng\.pt"):
        opened(megatron(tmp_path / "mg", STATES[name]))


@contextlib.contextmanager
def training_library():
    """Modules that exist only while a checkpoint is saved."""

    class ModelType(Enum):
        encoder_or_decoder = 1

    class Config:
        def __init__(self):
            self.hidden_size = 7

    def _rebuild_npu_tensor():
        """Is only pickled by name."""

    names = ("mindspeed_llm", "mindspeed_llm.enums", "torch_npu", "torch_npu.utils", "torch_npu.utils.storage")
    modules = {name: types.ModuleType(name) for name in names}
    for name, member in zip((names[1], names[1], names[4]), (ModelType, Config, _rebuild_npu_tensor), strict=True):
        member.__module__, member.__qualname__ = name, member.__name__
        setattr(modules[name], member.__name__, member)
    with mock.patch.dict(sys.modules, modules):
        yield types.SimpleNamespace(ModelType=ModelType, Config=Config, rebuild=_rebuild_npu_tensor)


def test_checkpoint_of_a_training_run_is_read_exactly(tmp_path):
    with training_library() as library:
        counted = defaultdict(dict, {0: {"a": 1}})
        extra = {"decoder.layers.0.self_attention._extra_state": io.BytesIO(b"fp8"), "b._extra_state": None}
        state = {
            "args": argparse.Namespace(
                num_layers=2, model_type=library.ModelType.encoder_or_decoder, params_dtype=torch.bfloat16
            ),
            "model": OrderedDict(WEIGHTS | extra),
            "model1": defaultdict(None, {"c": torch.nn.Parameter(WEIGHTS["b"])}),
            "optimizer": {"state": [torch.ones(3)], "config": library.Config(), "counted": counted},
            "rng_state": [{"np_rng_state": np.random.get_state(), "torch_rng_state": torch.get_rng_state()}],
            "iteration": 7,
            "float": np.float64(1.5),
            "set": {1, 2},
        }
        folder = megatron(tmp_path / "mg", state)
    assert not any(name.startswith(("mindspeed_llm", "torch_npu")) for name in sys.modules)
    source = opened(folder)
    assert source.args["num_layers"] == 2
    found = {(part, key): elements(source, (rank, part, key)) for rank, part, key in source.tensors}
    assert found == {
        ("model", "a"): expected(WEIGHTS["a"]),
        ("model", "b"): expected(WEIGHTS["b"]),
        ("model1", "c"): expected(WEIGHTS["b"]),
    }


def test_tensors_saved_from_an_npu_are_read_exactly(tmp_path):
    class Saved(torch.Tensor):
        def __reduce_ex__(self, protocol):
            plain = self.as_subclass(torch.Tensor)
            _, arguments = plain.__reduce_ex__(protocol)
            return library.rebuild, (*arguments[:6], 29)  # FRACTAL_NZ; the bytes are plain ones

    model = {name: tensor.as_subclass(Saved) for name, tensor in WEIGHTS.items()}
    with training_library() as library:
        folder = megatron(tmp_path / "mg", {"args": ARGS, "model": model})
    source = opened(folder)
    assert {key[2]: elements(source, key) for key in source.tensors} == {k: expected(v) for k, v in WEIGHTS.items()}


def test_bits_of_nan_views_and_empty_tensors_are_kept(tmp_path):
    bits = torch.tensor([0x7F81, 0x7FC0, -1, -127], dtype=torch.int16).view(torch.bfloat16)
    whole = torch.arange(20, dtype=torch.float32)
    state = {"nan": bits, "view": whole[5:11].view(2, 3), "whole": whole, "none": torch.empty(0, 4), "one": whole[3]}
    save(tmp_path / "hf" / "pytorch_model.bin", state)
    source = HuggingFaceSource(tmp_path / "hf")
    assert {name: info.shape for name, info in source.tensors.items()} == {n: tuple(t.shape) for n, t in state.items()}
    assert {name: elements(source, name) for name in state} == {name: expected(t) for name, t in state.items()}
