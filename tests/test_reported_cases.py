"""What people reported of converters, each as the command line that they gave: checkpoints as training leaves them."""

import datetime
import errno
import functools
import json
import os
import pathlib
import shutil
import types
from argparse import Namespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from command_line import run_main
from mscvt.testing import save_huggingface
from reference_converter import expected_return
from small_configurations import MIXTURE, QWEN
from test_properties import assert_same, read_huggingface
from trained_checkpoint import PP, TP, Run

INDEX = "model.safetensors.index.json"


@pytest.fixture
def make(tmp_path):
    return lambda model_type="qwen3", config=QWEN, **options: Run(tmp_path, model_type, config, options)


def recorded(config, tensor=1, stages=1, **more):
    """The args of a training run that knows nothing of mscvt, under Megatron's own names."""
    values = {
        "tensor_model_parallel_size": tensor,
        "pipeline_model_parallel_size": stages,
        "expert_model_parallel_size": 1,
        "expert_tensor_parallel_size": tensor,
        "num_layers": config["num_hidden_layers"],
        "hidden_size": config["hidden_size"],
        "ffn_hidden_size": config["intermediate_size"],
        "num_attention_heads": config["num_attention_heads"],
        "group_query_attention": True,
        "num_query_groups": config["num_key_value_heads"],
        "kv_channels": config["head_dim"],
        "vocab_size": config["vocab_size"],
        "padded_vocab_size": config["vocab_size"],
        "norm_epsilon": config["rms_norm_eps"],
        "rotary_base": int(config["rope_theta"]),
        "max_position_embeddings": config["max_position_embeddings"],
        "untie_embeddings_and_output_weights": True,
        "transformer_impl": "local",
        "num_experts": config.get("num_experts"),
        "noop_layers": None,
        "num_layers_per_virtual_pipeline_stage": None,
        "virtual_pipeline_model_parallel_size": None,
        "moe_grouped_gemm": False,
        "mtp_num_layers": None,
        "params_dtype": torch.bfloat16,
    }
    if "num_experts" in config:
        values["moe_ffn_hidden_size"] = config["moe_intermediate_size"]
    return Namespace(**{**values, **more})


def record(run, args, **more):
    """Save all shards again with what a run keeps beside its weights."""
    for path in run.shards:
        with torch.serialization.safe_globals([Namespace]):
            state = torch.load(path, weights_only=True)
        torch.save({**state, "args": args, **more}, path)


def assert_way_back(run, *options, load_dir=None):
    """`mscvt mg2hf` gives the source back, byte for byte; returns what it said."""
    where = ("--load-dir", load_dir or run.mg, "--save-dir", run.back, "--hf-cfg-dir", run.hf)
    outcome = run_main("mg2hf", *where, *options)
    assert outcome.code == 0, outcome.err
    assert_same(read_huggingface(run.back), expected_return(run.case, run.source))
    return outcome.out


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


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


def test_distributed_checkpoint_is_named_as_one(make, tmp_path):
    run = make()
    folder = tmp_path / "dist" / "iter_0000500"
    folder.mkdir(parents=True)
    (tmp_path / "dist" / "latest_checkpointed_iteration.txt").write_text("500")
    for name in ("__0_0.distcp", "__0_1.distcp", ".metadata", "common.pt"):
        (folder / name).write_bytes(b"")
    (folder / "metadata.json").write_text('{"sharded_backend": "torch_dist", "sharded_backend_version": 1}')
    outcome = run_main("mg2hf", "--load-dir", tmp_path / "dist", "--save-dir", run.back, "--hf-cfg-dir", run.hf)
    assert outcome.code == 1
    assert "torch_dist" in outcome.err
    assert "--ckpt-format torch" in outcome.err
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


def test_rotary_base_and_epsilon_of_the_training_run_are_written_and_said(make):
    run = make()
    record(run, recorded(QWEN, rotary_base=1000000, norm_epsilon=1e-2))
    said = assert_way_back(run)
    written = config_of(run.back)
    assert (written["rope_theta"], written["rms_norm_eps"]) == (1000000, 0.01)
    assert "rope_theta is 1000000" in said
    assert "rms_norm_eps is 0.01" in said


def test_head_that_was_trained_apart_is_written_and_the_configuration_says_so(make):
    run = make()
    record(run, recorded(QWEN))
    (run.hf / "config.json").write_text(json.dumps({**QWEN, "tie_word_embeddings": True}))
    said = assert_way_back(run)
    assert config_of(run.back)["tie_word_embeddings"] is False
    assert "tie_word_embeddings is false" in said


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ((3, 1), {"decoder_first_pipeline_num_layers": 3, "decoder_last_pipeline_num_layers": None}),
        ((1, 3), {"decoder_last_pipeline_num_layers": 3}),
        ((1, 2, 1), {"decoder_first_pipeline_num_layers": 1, "decoder_last_pipeline_num_layers": 1}),
    ],
    ids=str,
)
def test_stages_of_unequal_length_are_read_as_megatron_records_them(make, stages, said):
    run = make(**{PP: len(stages)}, num_layer_list=stages)
    record(run, recorded(QWEN, stages=len(stages), **said))
    assert_way_back(run)


def test_virtual_stages_are_read_by_their_number(make):
    run = make(**{PP: 2}, num_layers_per_virtual_pipeline_stage=1)
    record(run, recorded(QWEN, stages=2, virtual_pipeline_model_parallel_size=2))
    assert_way_back(run)


def test_checkpoint_without_args_is_read_with_its_configuration_and_options(make):
    run = make(**{TP: 2, PP: 2}, noop_layers=(0, 5))
    for path in run.shards:
        with torch.serialization.safe_globals([Namespace]):
            state = torch.load(path, weights_only=True)
        torch.save({name: value for name, value in state.items() if name != "args"}, path)
    where = ("--load-dir", run.mg, "--save-dir", run.back, "--hf-cfg-dir", run.hf)
    for options in ((), ("--tp", 1, "--pp", 4), ("--tp", 1, "--pp", 2)):
        refused = run_main("mg2hf", *where, *options)
        assert refused.code == 1
        assert "give them as options, such as --tp 2" in refused.err
        assert "args say" not in refused.err
    assert_way_back(run, "--tp", 2, "--pp", 2, "--noop-layers", "0,5")


def test_padded_vocabulary_that_is_not_recorded_is_read_as_the_hint_says(make):
    run = make(make_vocab_size_divisible_by=32)
    record(run, recorded(QWEN, padded_vocab_size=None))
    refused = run_main("mg2hf", "--load-dir", run.mg, "--save-dir", run.back, "--hf-cfg-dir", run.hf)
    assert refused.code == 1
    assert "--make-vocab-size-divisible-by N" in refused.err
    assert_way_back(run, "--make-vocab-size-divisible-by", 32)


def test_file_that_an_older_pickle_protocol_wrote_is_read(make):
    run = make()
    for path in run.shards:
        with torch.serialization.safe_globals([Namespace]):
            state = torch.load(path, weights_only=True)
        torch.save(state, path, pickle_protocol=4)
    assert_way_back(run)


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
