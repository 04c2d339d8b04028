"""The command line when something is wrong: usage, errors, differences, interruption."""

import argparse

import pytest
import torch

from command_line import make_source, run_main
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


def test_json_leaves_stdout_empty_when_there_is_an_error(tmp_path):
    outcome = run_main("hf2mg", "--load-dir", tmp_path / "nowhere", "--save-dir", tmp_path / "mg", "--json")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["hf2mg", "--target-tensor-paralel-size", "2"], "--target-tensor-parallel-size"),
        (["convert", "--noop-layer", "3"], "--noop-layers"),
        (["hf2gm"], "hf2mg"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_usage_is_answered_with_a_suggestion(arguments, suggestion):
    outcome = run_main(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert suggestion in outcome.err
    assert "--help' for help" in outcome.err


def test_wrong_usage_is_refused_when_a_list_is_none(tmp_path):
    outcome = run_main("hf2mg", "--load-dir", tmp_path, "--save-dir", tmp_path / "x", "--noop-layers", "3;4")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--noop-layers: '3;4' is no list of numbers" in outcome.err


def test_errors_are_on_stderr_and_say_what_to_do(tmp_path):
    outcome = run_main("hf2mg", "--load-dir", tmp_path / "nowhere", "--save-dir", tmp_path / "mg")
    assert (outcome.code, outcome.out) == (1, "")
    error, hint = outcome.err.splitlines()
    assert error == f"error: {tmp_path / 'nowhere'}: no such folder"
    assert hint.startswith("hint: ")


def test_debug_lets_the_traceback_through(tmp_path):
    with pytest.raises(MscvtError, match="no such folder"):
        run_main("hf2mg", "--load-dir", tmp_path / "nowhere", "--save-dir", tmp_path / "mg", "--debug")


def test_errors_of_the_system_have_no_traceback_but_with_debug(tmp_path, monkeypatch):
    def refuse():
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr("mscvt.cli.commands.load_registry", refuse)
    outcome = run_main("plugins")
    assert (outcome.code, outcome.err) == (1, "error: /somewhere: Permission denied\n")
    with pytest.raises(PermissionError):
        run_main("plugins", "--debug")


def test_verify_fails_and_names_the_tensor_when_a_value_differs(checkpoints, tmp_path):
    hf, _ = checkpoints
    assert run_main("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg").code == 0
    (path,) = (tmp_path / "mg").rglob("*.pt")
    with torch.serialization.safe_globals([argparse.Namespace]):
        state = torch.load(path, weights_only=True)
    state["model"]["decoder.final_layernorm.weight"][3] += 1
    torch.save(state, path)
    outcome = run_main("verify", "--hf", hf, "--mg", tmp_path / "mg")
    assert (outcome.code, outcome.err) == (1, "")
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
