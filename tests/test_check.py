"""Checking a Hugging Face checkpoint: each thing that may be wrong is named with its file."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from command_line import make_source, run_main
from downloads import INDEX, LAST, SHARD, model_files
from hub_server import git_sha1
from json_keys import check_object


@pytest.fixture
def folder(tmp_path):
    """A whole checkpoint in two shards."""
    (tmp_path / "hf").mkdir()
    for name, data in model_files().items():
        (tmp_path / "hf" / name).write_bytes(data)
    return tmp_path / "hf"


def record(folder):
    """Write down what a hub states, as a download does."""
    files = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in model_files().items()
    }
    said = {"source": "huggingface", "repository": "mine/Small-1B", "asked": None, "revision": "main", "kept": []}
    (folder / ".mscvt-download.json").write_text(json.dumps({"what": "a download of mscvt", **said, "files": files}))


def checked(folder, *words):
    """Check a folder; returns what is wrong by file, and with the whole."""
    outcome = run_main("check", folder, "--json", *words)
    shown = json.loads(outcome.out)
    check_object("check", shown)
    assert outcome.code == (0 if shown["is_whole"] else 1)
    bad = {file["path"]: file["problems"] for file in shown["files"] if file["problems"]}
    assert shown["is_whole"] == (not bad and not shown["problems"])
    return bad, shown["problems"], shown


def flip(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_whole_checkpoint_is_said_to_be_whole(folder):
    record(folder)
    outcome = run_main("check", folder)
    assert outcome.code == 0
    assert outcome.out.startswith("whole; looked at 4 files, ")
    assert "compared: size of 4 files, sha256 of 4 files\n" in outcome.out
    assert " tensors, all that llama2 needs and config.json describes" in outcome.out
    assert outcome.out.endswith(f"\ngo on with: mscvt plan hf2mg --load-dir {folder}\n")


@pytest.mark.parametrize("model_type", ["deepseek3", "deepseek32", "qwen3-moe"])
def test_tensors_are_compared_under_the_model_type(model_type, tmp_path):
    make_source(model_type, tmp_path / "hf")
    bad, problems, shown = checked(tmp_path / "hf")
    assert (bad, problems, shown["model_type"]) == ({}, [], model_type)
    assert any("nobody states checksums" in note for note in shown["notes"])


def test_every_bad_file_is_named_and_not_only_the_first(folder):
    record(folder)
    (folder / SHARD).unlink()
    flip(folder / LAST)
    (folder / "config.json").write_text("{")
    bad, problems, _ = checked(folder)
    assert bad[SHARD] == ["is missing"]
    assert len(bad[LAST]) == 1
    assert bad[LAST][0].startswith("its sha256 is ")
    assert bad["config.json"][0].startswith("has 1 bytes, the hub states ")
    assert problems == []
    outcome = run_main("check", folder)
    assert "NOT whole: 3 bad files;" in outcome.out
    again = outcome.out.partition("to fetch these anew: ")[2].strip()
    assert again == f"rm {folder / 'config.json'} {folder / LAST} && mscvt download mine/Small-1B --to {folder}"


def test_file_that_was_cut_is_named_without_any_checksum(folder):
    (folder / LAST).write_bytes((folder / LAST).read_bytes()[:-8])
    (folder / SHARD).write_bytes(b"{}")
    bad, problems, shown = checked(folder)
    assert "its tensors end at byte" in bad[LAST][0]
    assert bad[SHARD] == ["not a safetensors file, it has only 2 bytes"]
    assert problems == []
    assert "the tensors were not compared with config.json: files are missing or damaged" in shown["notes"]


def test_one_flipped_bit_is_found_and_quick_leaves_it(folder):
    record(folder)
    flip(folder / SHARD)
    bad, _, shown = checked(folder)
    assert list(bad) == [SHARD]
    assert shown["model_type"] == "llama2"
    bad, _, shown = checked(folder, "--quick")
    assert bad == {}
    assert "no checksums were compared" in shown["notes"]


@pytest.mark.parametrize("style", ["{sum}  {name}", "{sum} *./{name}", "MD5 ({name}) = {sum}", "{sum}"])
def test_md5_beside_a_file_is_compared(style, folder):
    value = hashlib.md5(model_files()[SHARD]).hexdigest()
    (folder / f"{SHARD}.md5").write_text(style.format(sum=value.upper(), name=SHARD) + "\n")
    bad, _, shown = checked(folder)
    assert bad == {}
    assert {file["path"]: file["compared"] for file in shown["files"]}[SHARD] == ["md5"]
    flip(folder / SHARD)
    bad, _, _ = checked(folder)
    assert bad[SHARD][0].endswith(f"{SHARD}.md5 states {value}")


def test_file_that_a_list_of_checksums_names_and_that_is_not_there_is_named(folder):
    (folder / "all.md5").write_text(f"{'0' * 32}  tokenizer.json\n")
    assert checked(folder)[0] == {"tokenizer.json": ["is missing"]}


@pytest.mark.parametrize("text", ["no checksum", f"{'0' * 32}  ../outside", f"{'0' * 32}  /etc/passwd"])
def test_list_of_checksums_that_makes_no_sense_is_named(text, folder):
    (folder / "all.md5").write_text(f"{text}\n")
    bad, problems, _ = checked(folder)
    assert bad == {}
    assert len(problems) == 1
    assert problems[0].startswith(f"{folder / 'all.md5'}: ")


def test_what_the_hubs_own_downloader_noted_is_compared(folder):
    notes = folder / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    sums = {
        SHARD: hashlib.sha256(model_files()[SHARD]).hexdigest(),
        "config.json": git_sha1(model_files()["config.json"]),
    }
    for name, value in {**sums, "README.md": "0" * 40}.items():
        (notes / f"{name}.metadata").write_text(f"{'a' * 40}\n{value}\n1700000000.0\n")
    bad, _, shown = checked(folder)
    assert bad == {}
    compared = {file["path"]: file["compared"] for file in shown["files"]}
    assert (compared[SHARD], compared["config.json"]) == (["sha256"], ["git-sha1"])
    flip(folder / SHARD)
    (folder / "config.json").write_bytes(model_files()["config.json"] + b"\n")
    assert checked(folder)[0].keys() == {SHARD, "config.json"}


def test_names_of_files_in_the_cache_of_the_hub_are_compared(folder):
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    blob = blobs / hashlib.sha256(model_files()[SHARD]).hexdigest()
    (folder / SHARD).rename(blob)
    (folder / SHARD).symlink_to(os.path.relpath(blob, folder))
    assert checked(folder)[0] == {}
    flip(blob)
    assert "the cache of the hub states" in checked(folder)[0][SHARD][0]
    blob.unlink()
    assert "is a link to" in checked(folder)[0][SHARD][0]


def test_index_that_contradicts_the_files_is_named_with_its_faults(folder):
    index = json.loads((folder / INDEX).read_text())
    name = min(index["weight_map"])
    index["weight_map"][name] = LAST if index["weight_map"][name] == SHARD else SHARD
    (folder / INDEX).write_text(json.dumps(index))
    (folder / "config.json").unlink()
    bad, problems, _ = checked(folder)
    assert bad == {"config.json": ["is missing"]}
    assert "the index and the files contradict each other" in problems[0]
    assert problems[1].startswith(f"{name} is in ")


def test_index_that_is_damaged_is_named(folder):
    (folder / INDEX).write_text("{}")
    bad, problems, _ = checked(folder)
    assert bad == {}
    assert problems == [f"{folder / INDEX}: has no weight_map from tensor names to file names"]


def test_folder_without_weights_says_so_beside_everything_else(folder):
    for path in folder.iterdir():
        if path.name != "config.json":
            path.unlink()
    (folder / "config.json").write_text("[]")
    bad, problems, _ = checked(folder)
    assert bad == {"config.json": ["holds list, expected an object"]}
    assert "no weights found" in problems[0]


def test_tensors_that_config_does_not_describe_are_named_folded(folder):
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] -= 1
    (folder / "config.json").write_text(json.dumps(config))
    bad, problems, _ = checked(folder)
    assert bad == {}
    assert problems[0].startswith("the checkpoint is not what the model needs")
    assert any(problem.startswith("no rule takes: model.layers.") for problem in problems)


def test_tensor_of_another_shape_is_named(folder):
    tensors = load_file(folder / LAST)
    tensors["model.norm.weight"] = torch.zeros(3)
    save_file(tensors, folder / LAST)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = LAST
    (folder / INDEX).write_text(json.dumps(index))
    other = load_file(folder / SHARD)
    if other.pop("model.norm.weight", None) is not None:
        save_file(other, folder / SHARD)
    _, problems, _ = checked(folder)
    assert any("model.norm.weight has the shape [3], expected [" in problem for problem in problems)


def test_missing_mtp_layers_are_a_note_and_missing_layers_a_fault(tmp_path):
    folder = make_source("deepseek32", tmp_path / "hf")
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    tensors = load_file(folder / "model.safetensors")
    mtp = f"model.layers.{layers}."
    assert any(name.startswith(mtp) for name in tensors)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(mtp)}
    save_file(kept, folder / "model.safetensors")
    bad, problems, shown = checked(folder)
    assert (bad, problems) == ({}, [])
    assert "the MTP layers that config.json counts are not there; conversions leave them out" in shown["notes"]
    name = next(name for name in tensors if name.startswith(mtp))
    save_file({**kept, name: tensors[name]}, folder / "model.safetensors")
    assert checked(folder)[1][0].startswith("the checkpoint is not what the model needs")


def test_model_that_no_plugin_serves_is_compared_with_nothing_and_that_is_said(folder):
    (folder / "config.json").write_text('{"model_type": "unheard-of"}')
    bad, problems, shown = checked(folder)
    assert (bad, problems, shown["model_type"]) == ({}, [], None)
    assert any("the tensors were not compared with config.json: " in note for note in shown["notes"])


def test_bin_files_are_checked_too(folder, tmp_path):
    tensors = {**load_file(folder / SHARD), **load_file(folder / LAST)}
    (tmp_path / "bin").mkdir()
    torch.save(tensors, tmp_path / "bin" / "pytorch_model.bin")
    shutil.copy(folder / "config.json", tmp_path / "bin")
    assert checked(tmp_path / "bin")[:2] == ({}, [])
    flip(tmp_path / "bin" / "pytorch_model.bin", -10)
    assert "pytorch_model.bin" in checked(tmp_path / "bin")[0]


def test_folder_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "mg").mkdir()
    (tmp_path / "mg" / "latest_checkpointed_iteration.txt").write_text("1")
    outcome = run_main("check", tmp_path / "mg")
    assert outcome.code == 1
    assert "is a Megatron checkpoint, expected one of Hugging Face" in outcome.err
    assert "hint: `mscvt inspect` shows what is in it, `mscvt mg2hf` converts it" in outcome.err
    assert "no such folder" in run_main("check", tmp_path / "nowhere").err


def test_check_needs_no_torch(folder):
    record(folder)
    program = "import sys\nfrom mscvt.cli.main import main\ntry:\n    main()\nfinally:\n    print(*sys.modules)\n"
    result = subprocess.run(
        [sys.executable, "-c", program, "check", str(folder)], capture_output=True, text=True, check=True
    )
    assert {"torch", "numpy", "transformers", "huggingface_hub"} & set(result.stdout.split()) == set()
