"""Downloading from a hub: what is fetched, and what is refused."""

import json
import os
import shutil
import subprocess
import sys

import huggingface_hub.constants as hub_constants
import pytest

from command_line import run_main
from downloads import INDEX, NAME, NEEDED, SHARD, check_whole, model_files, refused
from hub_server import COMMIT, Repository


def test_weights_in_one_format_and_configuration_are_fetched_and_convert(hub, tmp_path):
    outcome = run_main("download", NAME, "--to", tmp_path / "hf")
    assert outcome.code == 0, outcome.err
    check_whole(tmp_path / "hf")
    assert sorted(hub.fetched()) == sorted(NEEDED)
    assert f"holds {NAME} at {COMMIT}: 6 files, " in outcome.out
    fetched = sum(path.stat().st_size for path in (tmp_path / "hf").iterdir() if path.name in NEEDED)
    assert outcome.out.startswith(f"fetched {fetched:,} bytes in ")
    go_on = outcome.out.partition("go on with: mscvt ")[2].split()
    assert run_main(*go_on).code == 0


def test_record_has_sizes_and_checksums_that_the_hub_states(hub, tmp_path):
    assert run_main("download", NAME, "--to", tmp_path / "hf").code == 0
    record = json.loads((tmp_path / "hf" / ".mscvt-download.json").read_text())
    assert (record["source"], record["repository"], record["revision"]) == ("huggingface", NAME, COMMIT)
    assert record["files"].keys() == NEEDED
    assert len(record["files"][SHARD]["sha256"]) == 64
    assert len(record["files"]["config.json"]["git-sha1"]) == 40
    assert record["files"][SHARD]["bytes"] == len(hub.repositories[NAME].files[SHARD])


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        (["model.safetensors", "pytorch_model.bin", INDEX], {"model.safetensors"}),
        (["pytorch_model.bin", "pytorch_model.bin.index.json"], {"pytorch_model.bin"}),
        (["model.safetensors", "consolidated.safetensors", "model.fp16.safetensors"], {"model.safetensors"}),
    ],
    ids=["safetensors", "bin", "variants"],
)
def test_weights_are_those_that_a_folder_would_be_read_from(there, wanted, hub, tmp_path):
    hub.repositories[NAME] = Repository(dict.fromkeys(["config.json", *there], b"{}"))
    assert run_main("download", NAME, "--to", tmp_path / "hf").code == 0
    assert set(hub.fetched()) == wanted | {"config.json"}


def test_token_is_sent_to_the_hub_and_not_to_where_bytes_lie(hub, monkeypatch, tmp_path):
    hub.repositories[NAME].refusal = (403, "GatedRepo")
    error = refused(NAME, "--to", tmp_path / "hf")
    assert f"error: {NAME}: is gated" in error
    assert f"{hub.url}/{NAME}" in error
    assert not (tmp_path / "hf").exists()
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    hub.token = "hf_mine"
    assert run_main("download", NAME, "--to", tmp_path / "hf").code == 0
    check_whole(tmp_path / "hf")
    assert hub.foreign_tokens == []


def test_model_that_is_not_there_is_refused_with_one_that_is_nearly_called_so(hub, tmp_path):
    error = refused("mine/Smal-1B", "--to", tmp_path / "hf")
    assert f"error: mine/Smal-1B: {hub.url} has no such model" in error
    assert f"hint: Did you mean {NAME}?" in error
    assert not (tmp_path / "hf").exists()


def test_revision_that_is_not_there_is_refused_with_those_that_are(hub, tmp_path):
    error = refused(NAME, "--to", tmp_path / "hf", "--revision", "mian")
    assert f"error: {NAME}: has no revision mian" in error
    assert "Did you mean main?" in error


@pytest.mark.parametrize(
    ("status", "said"), [(401, "has no such model, or not"), (403, "refuses it: "), (400, "answers 400")]
)
def test_refusal_of_the_hub_is_said_in_one_line(status, said, hub, tmp_path):
    hub.repositories[NAME].refusal = (status, "")
    assert said in refused(NAME, "--to", tmp_path / "hf")


def test_file_that_is_gone_is_refused_by_its_name(hub, tmp_path):
    files = hub.repositories[NAME].files
    index = json.loads(files[INDEX])
    index["weight_map"]["more"] = "model-00003-of-00003.safetensors"
    files[INDEX] = json.dumps(index).encode()
    error = refused(NAME, "--to", tmp_path / "hf")
    assert "names files that the hub does not have (1), such as model-00003-of-00003.safetensors" in error
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize("file", ["../escaped.safetensors", "/etc/passwd", "a/../../b.safetensors", ".mscvt-download"])
def test_names_that_leave_the_folder_are_not_followed(file, hub, tmp_path):
    index = json.dumps({"weight_map": {"w": file}}).encode()
    hub.repositories[NAME] = Repository({"config.json": b"{}", INDEX: index, file: b"w", "..\\x.json": b"{}"})
    assert "names files that the hub does not have (1)" in refused(NAME, "--to", tmp_path / "hf")
    assert list(tmp_path.iterdir()) == []


def test_status_that_stays_is_said(hub, tmp_path):
    hub.repositories[NAME].statuses = {"": [503] * 3}
    assert f"{NAME}: {hub.url} answers 503: " in refused(NAME, "--to", tmp_path / "hf")


def test_adapter_is_fetched_with_its_configuration_and_the_command_that_merges_it(hub, tmp_path):
    config = json.dumps({"base_model_name_or_path": "mine/Small-1B"}).encode()
    files = {"adapter_config.json": config, "adapter_model.safetensors": b"w", "adapter_model.bin": b"w"}
    hub.repositories["mine/Adapter"] = Repository({**files, "tokenizer.json": b"{}", "README.md": b""})
    outcome = run_main("download", "mine/Adapter", "--to", tmp_path / "lora")
    assert outcome.code == 0, outcome.err
    assert set(hub.fetched()) == {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}
    merge = f"--load-dir Small-1B --lora-load {tmp_path / 'lora'} --save-dir {tmp_path / 'lora-mcore'}"
    assert outcome.out.splitlines()[-1] == f"go on with: mscvt hf2mg {merge}"


def test_model_that_no_plugin_serves_is_said_to_be_so(hub, tmp_path):
    hub.repositories[NAME] = Repository({**model_files(), "config.json": b'{"model_type": "unheard-of"}'})
    said = "note: it can't be converted yet: config.json says model_type 'unheard-of'"
    assert run_main("download", NAME, "--to", tmp_path / "hf").out.splitlines()[-1].startswith(said)


def test_quantized_model_goes_on_with_the_option_that_decodes_it(hub, tmp_path):
    config = {**json.loads(model_files()["config.json"]), "quantization_config": {"quant_method": "fp8"}}
    hub.repositories[NAME] = Repository({**model_files(), "config.json": json.dumps(config).encode()})
    assert run_main("download", NAME, "--to", tmp_path / "hf").out.splitlines()[-1].endswith(" --dequantize")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["adapter_model.safetensors", "README.md"], "has weights and no adapter_config.json"),
        (["config.json", "model.Q4_K_M.gguf"], "but model.Q4_K_M.gguf"),
        (["model.safetensors"], "has weights and no config.json"),
        (["config.json", "README.md"], "but none of another kind"),
    ],
    ids=["adapter", "gguf", "no-config", "nothing"],
)
def test_repository_without_a_model_is_refused_by_what_it_has(files, said, hub, tmp_path):
    hub.repositories[NAME] = Repository(dict.fromkeys(files, b"{}"))
    assert said in refused(NAME, "--to", tmp_path / "hf")
    assert list(tmp_path.iterdir()) == []


def test_disk_without_room_is_refused_before_anything_is_fetched(hub, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=10_000))
    error = refused(NAME, "--to", tmp_path / "hf")
    assert "bytes more, the disk has 10,000 bytes free" in error
    assert set(hub.fetched()) <= {INDEX}


def test_offline_is_said_with_the_cache_that_has_the_model(hub, monkeypatch, tmp_path):
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    error = refused(NAME, "--to", tmp_path / "hf")
    assert "HF_HUB_OFFLINE is set, so nothing can be fetched" in error
    assert "Unset it where there is a network." in error
    assert hub.requests == []


def test_offline_names_the_folder_of_the_cache_that_has_the_model(hub, monkeypatch, tmp_path):
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    cached = tmp_path / "no-cache" / f"models--{NAME.replace('/', '--')}"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(COMMIT)
    (cached / "snapshots" / COMMIT).mkdir(parents=True)
    (cached / "snapshots" / COMMIT / "config.json").write_text("{}")
    error = refused(NAME, "--to", tmp_path / "hf")
    assert f"The cache of the hub has it: give {cached / 'snapshots' / COMMIT} to the conversion." in error


def test_hub_that_can_not_be_reached_is_said_with_other_ways(hub, monkeypatch, tmp_path):
    monkeypatch.setattr(hub_constants, "ENDPOINT", "http://127.0.0.1:9")
    error = refused(NAME, "--to", tmp_path / "hf")
    assert "http://127.0.0.1:9 can't be reached" in error
    assert "(HF_ENDPOINT)" in error


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("Qwen3-8B", "Write owner/name"),
        ("https://huggingface.co/Qwen/Qwen3-8B/tree/main", "Write Qwen/Qwen3-8B."),
        ("https://modelscope.cn/models/Qwen/Qwen3-8B", "Write Qwen/Qwen3-8B."),
    ],
)
def test_what_is_no_name_of_a_model_is_refused_with_how_it_is_written(written, hint, tmp_path):
    error = refused(written, "--to", tmp_path / "hf")
    assert "is no name of a model on a hub" in error
    assert f"hint: {hint}" in error


def test_hub_that_states_no_checksums_is_noted(hub, tmp_path):
    hub.repositories[NAME].states_sums = False
    outcome = run_main("download", NAME, "--to", tmp_path / "hf")
    assert outcome.code == 0
    assert "note: the hub states no checksum of config.json, " in outcome.out


def test_usual_variables_of_the_hub_are_honoured_by_a_program_of_its_own(hub, tmp_path):
    hub.repositories[NAME].refusal = (401, "RepoNotFound")
    hub.token = "hf_mine"
    program = [sys.executable, "-m", "mscvt", "download", NAME, "--to", str(tmp_path / "hf")]
    usual = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    for variables in ({"HF_TOKEN": "hf_mine"}, {"HF_HUB_OFFLINE": "1"}):  # the second has nothing to ask
        environment = {**os.environ, **usual, **variables}
        result = subprocess.run(program, capture_output=True, text=True, env=environment, check=False)
        assert result.returncode == 0, result.stderr
    check_whole(tmp_path / "hf")
