"""What `--hf-cfg-dir` copies, and what it doesn't follow."""

import json
import os

import pytest
from typer.testing import CliRunner

from golden_cases import CASES, build_source, load_case
from mscvt.cli.app import app
from mscvt.errors import MscvtError
from mscvt.formats.huggingface.config_files import find_config_files


def test_weights_and_their_index_are_not_among_the_files(tmp_path):
    for name in ("config.json", "tokenizer.json", "merges.txt", "model.safetensors", "model.safetensors.index.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "folder.json").mkdir()
    assert [path.name for path in find_config_files(tmp_path)] == ["config.json", "merges.txt", "tokenizer.json"]


def test_file_that_is_no_file_is_refused_by_name(tmp_path):
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(MscvtError, match=r"tokenizer\.json is not a regular file"):
        find_config_files(tmp_path)


def test_files_on_another_disk_are_found_behind_their_links(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "tokenizer.json").write_text("{}")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.json").symlink_to(tmp_path / "disk" / "tokenizer.json")
    assert [path.name for path in find_config_files(folder)] == ["tokenizer.json"]


def test_files_of_a_hub_cache_are_found_behind_their_links(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "abc").write_text("{}")
    snapshot = tmp_path / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/abc")
    assert [path.name for path in find_config_files(snapshot)] == ["config.json"]


def test_configuration_of_another_family_is_refused(tmp_path):
    case = load_case(CASES / "qwen3_tp1_tied.json")
    hf = build_source(case, tmp_path / "hf")
    runner = CliRunner()
    done = runner.invoke(app, ["hf2mg", "--load-dir", str(hf), "--save-dir", str(tmp_path / "mg")])
    assert done.exit_code == 0
    config = json.loads((hf / "config.json").read_text())
    (hf / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    back = ["mg2hf", "--load-dir", str(tmp_path / "mg"), "--save-dir", str(tmp_path / "back")]
    refused = runner.invoke(app, [*back, "--hf-cfg-dir", str(hf), "--debug"])
    assert isinstance(refused.exception, MscvtError)
    assert "'llama', the checkpoint is qwen3" in refused.exception.message
    assert not (tmp_path / "back").exists()
