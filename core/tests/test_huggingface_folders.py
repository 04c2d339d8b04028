"""What is given in place of a checkpoint's folder is named as what it is."""

import json

import pytest

from mscvt.errors import MscvtError, printable, shown
from mscvt.formats.huggingface.config import read_config
from mscvt.formats.huggingface.reader import HuggingFaceSource
from mscvt.formats.json_files import parse_json, read_json

GIVEN = {
    "megatron": (["latest_checkpointed_iteration.txt"], "is a Megatron checkpoint", "mg2hf"),
    "iteration": (["iter_0000500/x"], "is a Megatron checkpoint", "mg2hf"),
    "released": (["release/x"], "is a Megatron checkpoint", "mg2hf"),
    "ranks": (["mp_rank_00_001/model_optim_rng.pt"], "is a Megatron checkpoint", "mg2hf"),
    "distributed": (["__0_0.distcp", ".metadata"], "is a distributed checkpoint of torch", "transformers"),
    "original": (["consolidated.00.pth", "params.json"], "in the format of the model's own code", "config.json"),
    "gguf": (["model-q4.gguf"], "holds GGUF files", "safetensors"),
    "adapter": (["adapter_config.json"], "is a LoRA adapter of another model, not a model", "trained on"),
}


@pytest.mark.parametrize("opening", [read_config, HuggingFaceSource])
@pytest.mark.parametrize("given", GIVEN)
def test_folder_of_something_else_is_named_with_the_fix(given, opening, tmp_path):
    files, said, hint = GIVEN[given]
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(MscvtError) as caught:
        opening(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_folder_with_a_configuration_is_taken_whatever_else_lies_in_it(tmp_path):
    (tmp_path / "config.json").write_text('{"a": 1}')
    (tmp_path / "params.json").write_text("{}")
    (tmp_path / "release").mkdir()
    assert read_config(tmp_path) == {"a": 1}


def test_weights_beside_an_adapter_lack_only_their_configuration(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(MscvtError, match=r"config\.json: not found"):
        read_config(tmp_path)


@pytest.mark.parametrize("opening", [read_config, HuggingFaceSource])
def test_file_in_place_of_its_folder_is_named_with_its_folder(opening, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(MscvtError, match=r"config\.json: is a file") as caught:
        opening(tmp_path / "config.json")
    assert caught.value.hint == f"Give the folder that it lies in: {tmp_path}"


@pytest.mark.parametrize("opening", [read_config, HuggingFaceSource])
def test_name_of_a_model_on_a_hub_is_recognised(opening, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MscvtError, match=r"Qwen/Qwen3-0\.6B: no such folder") as caught:
        opening((tmp_path / "Qwen/Qwen3-0.6B").relative_to(tmp_path))
    assert "mscvt download Qwen/Qwen3-0.6B --to Qwen3-0.6B" in caught.value.hint


def test_path_that_is_no_name_on_a_hub_is_not_taken_for_one(tmp_path):
    with pytest.raises(MscvtError, match="no such folder") as caught:
        read_config(tmp_path / "absent")
    assert "mscvt download" not in caught.value.hint


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 300, "a\0b", "absent\x1b[2J"])
def test_path_that_no_folder_can_have_is_an_error(name, tmp_path):
    with pytest.raises(MscvtError) as caught:
        read_config(tmp_path / name)
    assert caught.value.message.isprintable()


def test_cache_of_the_hub_is_named_with_its_snapshot(tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    with pytest.raises(MscvtError, match="cache of the hub") as caught:
        read_config(tmp_path / "models--a--b")
    assert caught.value.hint == f"Give {snapshot}"


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "\xff", '{"base_model_name_or_path": 5}', "{}"])
def test_adapter_of_any_content_is_named(content, tmp_path):
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(MscvtError, match="is a LoRA adapter of another model"):
        read_config(tmp_path)


def test_adapter_is_named_with_the_model_it_was_trained_on(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base"}))
    with pytest.raises(MscvtError, match="is a LoRA adapter of some/base, not a model"):
        read_config(tmp_path)


def test_json_larger_than_its_limit_is_refused_without_reading_it_all(tmp_path):
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(MscvtError, match=r"x\.json: larger than 1,000 bytes"):
        read_json(tmp_path / "x.json", 1000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a": 1, "b": {"a": 1}, "a": 2}', "the name 'a' occurs twice"),
        (b'{"x": [{"\x1b[2J": 1, "\x1b[2J": 2}]}', "Invalid control character"),
        (b'{"\\u001b": 1, "\\u001b": 2}', "occurs twice"),
        (b"[" * 200_000, "nested too deep"),
        (b'{"a":' * 200_000, "nested too deep"),
        (b"9" * 5000, "not valid JSON"),
        (b"\xff", "not in UTF-8"),
        (b"[{}," + b"[]," * (1 << 21) + b"0]", "more than 2,097,152 objects and arrays"),
    ],
)
def test_json_out_of_bounds_is_refused_by_the_files_name(text, said, tmp_path):
    with pytest.raises(MscvtError, match=f"x.json: its text .*{said}") as caught:
        parse_json(text, tmp_path / "x.json", "its text ")
    assert caught.value.message.isprintable()


def test_text_of_files_is_shown_without_control_characters():
    hostile = "a\x1b[2J\n\r\x07\u202e\udcff\u2028é漢"
    assert printable(hostile) == "a\\x1b[2J\\n\\r\\x07\\u202e\\udcff\\u2028é漢"
    assert shown("x" * 300) == "x" * 200 + "..."
    error = MscvtError(hostile, hint=hostile, faults=[hostile])
    assert (error.message, error.hint, error.faults) == (printable(hostile), printable(hostile), (printable(hostile),))
    assert str(error).split("\n") == [printable(hostile), f"  - {printable(hostile)}"]
