"""The command line when something is wrong: usage, errors, differences, interruption."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from command_line import make_source, run_main
from json_keys import check_object
from mscvt.cli.app import app
from mscvt.cli.report import show_error
from mscvt.errors import MscvtError


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A Hugging Face and a Megatron checkpoint of the same model; don't write to them."""
    root = tmp_path_factory.mktemp("checkpoints")
    hf = make_source("qwen3", root / "hf")
    assert run_main("hf2mg", "--load-dir", hf, "--save-dir", root / "mg").code == 0
    return hf, root / "mg"


@pytest.mark.parametrize("kind", ["hf", "mg"])
def test_convert_is_refused_when_source_and_result_are_of_one_kind(kind, tmp_path):
    options = ["--load-model-type", kind, "--save-model-type", kind]
    outcome = run_main("convert", *options, "--load-dir", tmp_path, "--save-dir", tmp_path / "x")
    assert (outcome.code, outcome.out) == (2, "")
    assert f"both --load-model-type and --save-model-type are {kind}" in outcome.err


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (["--save-model-type", "mg", "--hf-cfg-dir", "hf"], "--hf-cfg-dir"),
        (["--save-model-type", "mg", "--iteration", "3"], "--iteration"),
        (["--load-model-type", "mg", "--save-model-type", "hf", "--dequantize"], "--dequantize"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_convert_is_refused_when_an_option_belongs_to_the_other_direction(options, flag, tmp_path):
    outcome = run_main("convert", *options, "--load-dir", tmp_path, "--save-dir", tmp_path / "x")
    assert (outcome.code, outcome.out) == (2, "")
    assert f"{flag} has no meaning with --save-model-type" in outcome.err


@pytest.mark.parametrize(("options", "code"), [([], 1), (["--workers", "0"], 2)], ids=["error", "usage"])
def test_json_has_the_error_too(options, code, tmp_path):
    words = ["hf2mg", "--load-dir", tmp_path / "nowhere", "--save-dir", tmp_path / "mg", *options]
    outcome = run_main(*words, "--json")
    assert outcome.code == code
    shown = json.loads(outcome.out)
    assert list(shown) == ["error"]
    check_object("error", shown["error"])
    assert outcome.err == f"error: {shown['error']['message']}\nhint: {shown['error']['hint']}\n"
    assert run_main(*words).err == outcome.err


def test_json_has_every_fault_and_stderr_has_them_folded(checkpoints, tmp_path):
    config = json.loads((checkpoints[0] / "config.json").read_text())
    shutil.copytree(checkpoints[0], tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 2}))
    outcome = run_main("hf2mg", "--load-dir", tmp_path / "hf", "--save-dir", tmp_path / "mg", "--json")
    faults = json.loads(outcome.out)["error"]["faults"]
    assert len(set(faults)) == 16
    lines = outcome.err.splitlines()
    assert [line.split(": ")[0] for line in lines[:2]] == ["error", "hint"]
    shape = "has the shape [40, 48], expected [20, 48] from config.json (8)"
    assert lines[2:] == [f"  - model.layers.{{0-7}}.self_attn.{part}_proj.weight {shape}" for part in "kv"]


@pytest.mark.parametrize("wrong", ["lama2", "qwen33", "deepsek3"])
def test_model_type_that_is_nearly_known_is_suggested(wrong, checkpoints, tmp_path):
    options = ["--save-dir", tmp_path / "mg", "--model-type-hf", wrong]
    outcome = run_main("hf2mg", "--load-dir", checkpoints[0], *options)
    assert (outcome.code, outcome.out) == (1, "")
    error, hint = outcome.err.splitlines()
    assert error.startswith(f"error: unknown model type {wrong!r}; installed: ")
    assert hint.startswith("hint: Did you mean ")
    assert {"lama2": "llama2", "qwen33": "qwen3", "deepsek3": "deepseek3"}[wrong] in hint


def test_model_type_that_config_json_uses_for_several_is_not_guessed(checkpoints, tmp_path):
    options = ["--save-dir", tmp_path / "mg", "--model-type-hf", "deepseek_v2"]
    outcome = run_main("hf2mg", "--load-dir", checkpoints[0], *options)
    assert outcome.code == 1
    assert "deepseek_v2: is config.json's name of deepseek2, deepseek2-lite" in outcome.err


def test_folder_that_is_nearly_there_is_suggested(checkpoints, tmp_path):
    (tmp_path / "llama-8b").mkdir()
    for words in (
        ["hf2mg", "--load-dir", tmp_path / "lama-8b", "--save-dir", tmp_path / "x"],
        ["mg2hf", "--load-dir", checkpoints[1], "--save-dir", tmp_path / "x", "--hf-cfg-dir", tmp_path / "lama-8b"],
        ["verify", "--hf", checkpoints[0], "--mg", tmp_path / "lama-8b"],
    ):
        outcome = run_main(*words)
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err.splitlines() == [
            f"error: {tmp_path / 'lama-8b'}: no such folder",
            f"hint: Did you mean llama-8b? It is in {tmp_path}.",
        ]


def test_file_in_the_place_of_a_folder_is_refused_with_the_folder(checkpoints, tmp_path):
    path = checkpoints[0] / "config.json"
    outcome = run_main("hf2mg", "--load-dir", path, "--save-dir", tmp_path / "mg")
    assert outcome.code == 1
    assert outcome.err.splitlines() == [
        f"error: {path}: is a file, --load-dir takes its folder",
        f"hint: Write --load-dir {checkpoints[0]}.",
    ]


def test_iteration_in_the_place_of_a_checkpoint_is_read(checkpoints):
    folder = checkpoints[1] / "iter_0000001"
    plans = [run_main("plan", "mg2hf", "--load-dir", each, "--save-dir", "x") for each in (checkpoints[1], folder)]
    assert [plan.code for plan in plans] == [0, 0]
    assert plans[1].out == plans[0].out.replace(str(checkpoints[1]), str(folder))
    assert run_main("verify", "--hf", checkpoints[0], "--mg", folder).out.startswith("equal; ")


def test_megatron_folder_that_is_not_there_is_refused_with_what_it_should_be(tmp_path):
    outcome = run_main("mg2hf", "--load-dir", tmp_path / "nowhere", "--save-dir", tmp_path / "hf")
    assert outcome.code == 1
    assert outcome.err.splitlines() == [
        f"error: {tmp_path / 'nowhere'}: no such folder",
        "hint: --load-dir takes the folder of a Megatron checkpoint, with latest_checkpointed_iteration.txt.",
    ]


def test_path_that_the_terminal_can_not_show_is_escaped(checkpoints, tmp_path):
    command = ["hf2mg", "--load-dir", str(checkpoints[0]), "--save-dir", str(tmp_path / "\udcff")]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    program = [sys.executable, "-m", "mscvt", *command]
    result = subprocess.run(program, capture_output=True, text=True, check=True, env=environment)
    assert f"{tmp_path}/\\udcff" in result.stdout


def test_verify_with_its_folders_exchanged_is_refused(checkpoints):
    outcome = run_main("verify", "--hf", checkpoints[1], "--mg", checkpoints[0])
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.splitlines()[1] == "hint: Are --hf and --mg exchanged?"


def test_errors_are_on_stderr_and_say_what_to_do(tmp_path):
    outcome = run_main("hf2mg", "--load-dir", tmp_path / "nowhere", "--save-dir", tmp_path / "mg")
    assert (outcome.code, outcome.out) == (1, "")
    error, hint = outcome.err.splitlines()
    assert error == f"error: {tmp_path / 'nowhere'}: no such folder"
    assert hint.startswith("hint: ")


def test_debug_lets_the_traceback_through(tmp_path):
    with pytest.raises(MscvtError, match="no such folder"):
        run_main("hf2mg", "--load-dir", tmp_path / "nowhere", "--save-dir", tmp_path / "mg", "--debug")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "/somewhere"), "/somewhere: Permission denied"),
        (MemoryError(), "there is not enough memory"),
        (RecursionError("maximum recursion depth exceeded"), "something that was read is nested too deeply"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "text can't be read or written: 'utf-8'"),
        (KeyError("moe"), "mscvt itself failed: KeyError: 'moe'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_errors_of_any_kind_have_no_traceback_but_with_debug(error, said, monkeypatch):
    def fail():
        raise error

    monkeypatch.setattr("mscvt.cli.commands.load_registry", fail)
    result = CliRunner().invoke(app, ["plugins"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {said}")
    assert "Traceback" not in result.stderr
    with pytest.raises(type(error)):
        run_main("plugins", "--debug")


@pytest.mark.parametrize(
    ("variables", "is_terminal", "is_coloured"),
    [({}, True, True), ({}, False, False), ({"NO_COLOR": "1"}, True, False), ({"TERM": "dumb"}, True, False)],
)
def test_errors_are_coloured_where_the_terminal_shows_it(variables, is_terminal, is_coloured, monkeypatch, capsys):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    show_error(MscvtError("wrong", hint="Do it right."))
    said = capsys.readouterr().err
    assert ("\x1b[" in said) == is_coloured
    assert re.sub(r"\x1b\[\d+m", "", said) == "error: wrong\nhint: Do it right.\n"


def test_verify_fails_and_names_the_tensor_when_a_value_differs(checkpoints, tmp_path):
    hf, _ = checkpoints
    assert run_main("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg").code == 0
    (path,) = (tmp_path / "mg").rglob("*.pt")
    with torch.serialization.safe_globals([argparse.Namespace]):
        state = torch.load(path, weights_only=True)
    state["model"]["decoder.final_layernorm.weight"][3] += 1
    torch.save(state, path)
    outcome = run_main("verify", "--hf", hf, "--mg", tmp_path / "mg")
    assert outcome.code == 1
    assert "error" not in outcome.err
    assert outcome.out.startswith("differs: ")
    assert "decoder.final_layernorm.weight" in outcome.out
    assert "NOT equal: 1 differing tensor;" in outcome.out


def test_interruption_says_how_to_go_on(checkpoints, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("mscvt.jobs.conversion.run_conversion", interrupt)
    outcome = run_main("hf2mg", "--load-dir", checkpoints[0], "--save-dir", tmp_path / "mg")
    assert (outcome.code, outcome.out) == (130, "")
    assert "interrupted; nothing was begun; the same command goes on with what earlier runs left" in outcome.err


def test_conversion_is_refused_when_the_source_is_of_the_wanted_kind(checkpoints, tmp_path):
    hf, mg = checkpoints
    outcome = run_main("mg2hf", "--load-dir", hf, "--save-dir", tmp_path / "x")
    assert (outcome.code, outcome.out) == (1, "")
    assert f"error: {hf}: has config.json, so it is a Hugging Face checkpoint" in outcome.err
    assert "hint: mscvt hf2mg converts" in outcome.err
    outcome = run_main("hf2mg", "--load-dir", mg, "--save-dir", tmp_path / "x")
    assert (outcome.code, outcome.out) == (1, "")
    assert f"error: {mg}: has latest_checkpointed_iteration.txt, so it is a Megatron checkpoint" in outcome.err
    assert "hint: mscvt mg2hf converts" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_command_that_nobody_reads_ends_without_a_word():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "mscvt", "plugins"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
