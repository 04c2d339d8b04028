"""What a conversion says about the Hugging Face side: what was not read, and what `config.json` now says."""

import json

from safetensors.torch import load_file
from typer.testing import CliRunner

from golden_cases import CASES, build_source, load_case
from mscvt.cli.app import app
from mscvt.testing import save_huggingface


def run(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def tensors_of(folder):
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def test_what_training_changed_is_written_and_said(tmp_path):
    hf = build_source(load_case(CASES / "qwen3_tp2_pp2_tied.json"), tmp_path / "hf")
    original = (hf / "config.json").read_text()
    trained = json.loads(original) | {"rope_theta": 5e6, "rms_norm_eps": 0.25}
    (hf / "config.json").write_text(json.dumps(trained))
    run("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg")
    (hf / "config.json").write_text(original)
    (hf / "adapter_config.json").write_text("{}")
    said = run("mg2hf", "--load-dir", tmp_path / "mg", "--save-dir", tmp_path / "back", "--hf-cfg-dir", hf)
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (written["rope_theta"], written["rms_norm_eps"]) == (5e6, 0.25)
    assert not (tmp_path / "back" / "adapter_config.json").exists()
    assert "rope_theta is 5000000.0, as the checkpoint has it" in said
    assert "rms_norm_eps is 0.25, as the checkpoint has it" in said


def test_files_and_entries_that_are_not_read_are_said_and_harm_nothing(tmp_path):
    case = load_case(CASES / "qwen3_tp2_pp2_tied.json")
    hf = build_source(case, tmp_path / "hf")
    run("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg")
    sharded = save_huggingface(
        tmp_path / "sharded",
        json.loads((hf / "config.json").read_text()),
        tensors_of(hf),
        shards=3,
    )
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    name, file = next(iter(index["weight_map"].items()))
    index["weight_map"][f"{name}_scale_inv"] = file
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    (sharded / "consolidated.safetensors").write_bytes(b"")
    said = run("verify", "--hf", sharded, "--mg", tmp_path / "mg")
    assert f"the index has entries that no file holds (1), for example {name}_scale_inv" in said
    assert "not read: consolidated.safetensors" in said


def test_index_entry_that_the_model_needs_is_missing(tmp_path):
    hf = build_source(load_case(CASES / "qwen3_tp2_pp2_tied.json"), tmp_path / "hf")
    tensors = tensors_of(hf)
    config = json.loads((hf / "config.json").read_text())
    sharded = save_huggingface(tmp_path / "sharded", config, tensors, shards=2)
    kept = dict(list(tensors.items())[: len(tensors) // 2 - 1])
    save_huggingface(tmp_path / "fewer", config, kept)
    (tmp_path / "fewer" / "model.safetensors").rename(sharded / "model-00001-of-00002.safetensors")
    arguments = ["hf2mg", "--load-dir", str(sharded), "--save-dir", str(tmp_path / "mg"), "--dry-run"]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 1
    assert f"missing: {list(tensors)[len(tensors) // 2 - 1]}" in refused.output
