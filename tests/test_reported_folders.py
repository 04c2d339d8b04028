"""What people reported of folders and files of checkpoints, each as the command line that they gave."""

import datetime
import errno
import functools
import json
import os
import pathlib
import shutil
import types

import pytest
import torch
from safetensors.torch import load_file, save_file

from command_line import run_main
from mscvt.testing import save_huggingface
from reference_converter import expected_return
from reported_runs import assert_way_back, config_of, record, recorded
from small_configurations import MIXTURE, QWEN
from test_properties import assert_same, read_huggingface
from trained_checkpoint import TP, Run

INDEX = "model.safetensors.index.json"


@pytest.fixture
def make(tmp_path):
    return lambda model_type="qwen3", config=QWEN, **options: Run(tmp_path, model_type, config, options)


def test_adapter_beside_the_configuration_is_not_copied(make):
    run = make()
    (run.hf / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "base_model_name_or_path": "a/base"}')
    save_file({"base_model.model.lora_A.weight": torch.zeros(2, 20)}, run.hf / "adapter_model.safetensors")
    assert_way_back(run)
    assert {path.name for path in run.back.iterdir()} == {"config.json", "model.safetensors"}


@pytest.mark.parametrize("said", [{"expert_tensor_parallel_size": 1}, {"moe_grouped_gemm": True}], ids=str)
def test_expert_options_of_a_dense_model_mean_nothing(make, said):
    run = make(**{TP: 2})
    record(run, recorded(QWEN, tensor=2, **said))
    assert_way_back(run)


@pytest.mark.parametrize("kind", ["files", "blobs"])
def test_checkpoint_of_links_to_another_disk_is_read(make, kind, tmp_path):
    run = make()
    disk, folder = tmp_path / "disk", tmp_path / "hub" / "snapshots" / "0"
    shutil.copytree(run.hf, disk)
    folder.mkdir(parents=True)
    if kind == "blobs":
        (tmp_path / "hub" / "blobs").symlink_to(disk)
    for path in disk.iterdir():
        (folder / path.name).symlink_to(f"../../blobs/{path.name}" if kind == "blobs" else path)
    outcome = run_main("verify", "--hf", folder, "--mg", run.mg)
    assert outcome.code == 0, outcome.err
    assert "equal; compared" in outcome.out


def test_rank_that_is_a_link_to_another_disk_is_read(make, tmp_path):
    run = make(**{TP: 2})
    rank = run.shards[0].parent
    rank.rename(tmp_path / "far")
    rank.symlink_to(tmp_path / "far")
    assert_way_back(run)


def test_index_entries_that_a_cast_left_are_noted(make, tmp_path):
    run = make()
    path = run.hf / INDEX
    index = json.loads(path.read_text())
    stale = {f"{name}_scale_inv": file for name, file in index["weight_map"].items() if name.endswith("proj.weight")}
    index["weight_map"] |= stale
    path.write_text(json.dumps(index))
    outcome = run_main("hf2mg", "--load-dir", run.hf, "--save-dir", tmp_path / "again")
    assert outcome.code == 0, outcome.err
    assert f"the index has entries that no file holds ({len(stale)}), for example {min(stale)}" in outcome.out
    assert (tmp_path / "again").exists()


def test_ffn_size_of_a_model_without_dense_layers_may_be_that_of_the_experts(make):
    run = make("qwen3-moe", MIXTURE)
    record(run, recorded(MIXTURE, ffn_hidden_size=MIXTURE["moe_intermediate_size"]))
    assert_way_back(run)
    assert config_of(run.back)["intermediate_size"] == MIXTURE["intermediate_size"]


OBJECTS = {
    "path": ({"save_path": pathlib.PosixPath("/data/checkpoints")}, {}),
    "namespace": ({"extra": types.SimpleNamespace(a=1)}, {}),
    "generator": ({}, {"rng_state": [{"rng_tracker_states": {"model-parallel-rng": torch.Generator()}}]}),
    "time": ({"timeout": datetime.timedelta(minutes=10)}, {}),
    "function": ({"init_method": torch.nn.init.xavier_normal_}, {}),
    "partial": ({"init_method": functools.partial(torch.nn.init.normal_, mean=0.0, std=0.02)}, {}),
}
"""What checkpoints hold beside plain values -> in `args`, and beside them."""


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_that_runs_keep_are_passed_over(make, name):
    run = make()
    args, beside = OBJECTS[name]
    record(run, recorded(QWEN, **args), **beside)
    assert_way_back(run)


def test_folder_of_one_iteration_is_taken_or_named_with_what_to_write(make):
    run = make()
    (run.mg / "iter_0000001").rename(run.mg / "iter_0000500")
    (run.mg / "latest_checkpointed_iteration.txt").write_text("500")
    where = ("--save-dir", run.back, "--hf-cfg-dir", run.hf)
    outcome = run_main("mg2hf", "--load-dir", run.mg / "iter_0000500", *where)
    if outcome.code:
        assert f"Write --load-dir {run.mg} --iteration 500." in outcome.err
        assert_way_back(run, "--iteration", 500)
    else:
        assert_same(read_huggingface(run.back), expected_return(run.case, run.source))


def test_damaged_distributed_checkpoint_is_named_as_one(make, tmp_path):
    run = make()
    folder = tmp_path / "dist" / "iter_0000500"
    folder.mkdir(parents=True)
    (tmp_path / "dist" / "latest_checkpointed_iteration.txt").write_text("500")
    for name in ("__0_0.distcp", "__0_1.distcp", ".metadata", "common.pt"):
        (folder / name).write_bytes(b"")
    (folder / "metadata.json").write_text('{"sharded_backend": "torch_dist", "sharded_backend_version": 1}')
    outcome = run_main("mg2hf", "--load-dir", tmp_path / "dist", "--save-dir", run.back, "--hf-cfg-dir", run.hf)
    assert outcome.code == 1
    assert "/.metadata: its pickle is damaged" in outcome.err
    assert not run.back.exists()


def test_variant_beside_the_weights_is_not_read(make, tmp_path):
    run = make()
    hf = save_huggingface(tmp_path / "variant", QWEN, run.source)
    other = {name: torch.zeros_like(tensor) for name, tensor in run.source.items()}
    save_file(other, hf / "model.fp16.safetensors")
    outcome = run_main("verify", "--hf", hf, "--mg", run.mg)
    assert outcome.code == 0, outcome.out
    assert "not read: model.fp16.safetensors" in outcome.out


def test_stale_index_without_its_shards_is_not_followed(make, tmp_path):
    run = make()
    hf = save_huggingface(tmp_path / "one", QWEN, run.source)
    shutil.copy(run.hf / INDEX, hf / INDEX)
    outcome = run_main("verify", "--hf", hf, "--mg", run.mg)
    assert outcome.code == 0, outcome.out
    assert f"not read: {INDEX}" in outcome.out


def test_folder_whose_parent_is_not_writable_is_refused_with_the_fix(make, tmp_path, monkeypatch):
    run = make()
    target = tmp_path / "shared" / "mine"
    target.mkdir(parents=True)
    mkdir = os.mkdir

    def refuse(path, *rest, **more):  # whoever runs tests as root may write everywhere
        if pathlib.Path(path).parent == target.parent:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        mkdir(path, *rest, **more)

    monkeypatch.setattr(os, "mkdir", refuse)
    outcome = run_main("hf2mg", "--load-dir", run.hf, "--save-dir", target)
    assert outcome.code == 1
    assert "the folder that holds --save-dir must be writable" in outcome.err
    assert "kept" not in outcome.err
    assert list(target.parent.iterdir()) == [target]
    monkeypatch.undo()
    assert run_main("hf2mg", "--load-dir", run.hf, "--save-dir", target / "inside").code == 0


def test_adapter_alone_is_no_model(make, tmp_path):
    run = make()
    folder = tmp_path / "adapter"
    folder.mkdir()
    shutil.copy(run.hf / "config.json", folder)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "a/base"}')
    save_file({"base_model.model.lora_A.weight": torch.zeros(2, 20)}, folder / "adapter_model.safetensors")
    outcome = run_main("hf2mg", "--load-dir", folder, "--save-dir", tmp_path / "out")
    assert outcome.code == 1
    assert "is a LoRA adapter of a/base" in outcome.err
    assert load_file(folder / "adapter_model.safetensors")
