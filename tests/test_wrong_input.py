"""Wrong input: one clear error that lists every fault, and nothing written."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from command_line import check_refused, make_source, run_main

TP = "--target-tensor-parallel-size"
QKV = "model.layers.{}.self_attn.{}_proj.weight"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source("qwen3", tmp_path_factory.mktemp("source") / "hf")


@pytest.fixture(scope="module")
def checkpoint(source, tmp_path_factory):
    target = tmp_path_factory.mktemp("checkpoint") / "mg"
    options = [TP, "2", "--target-pipeline-parallel-size", "2"]
    assert run_main("hf2mg", "--load-dir", source, "--save-dir", target, *options).code == 0
    return target


def copy_of(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "source")
    return tmp_path / "source"


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def test_missing_load_dir_is_named(tmp_path):
    for command in ("hf2mg", "mg2hf"):
        fragments = [f"{tmp_path / 'nowhere'}: no such folder"]
        check_refused(command, tmp_path / "nowhere", tmp_path / "out", [], fragments)


def test_load_dir_that_is_a_file_is_named(source, tmp_path):
    for command in ("hf2mg", "mg2hf"):
        check_refused(command, source / "config.json", tmp_path / "out", [], ["config.json"])


def test_missing_config_is_named(source, tmp_path):
    folder = copy_of(source, tmp_path)
    (folder / "config.json").unlink()
    check_refused("hf2mg", folder, tmp_path / "mg", [], ["config.json: not found", "hint: "])


def test_missing_weights_are_named(source, tmp_path):
    folder = copy_of(source, tmp_path)
    (folder / "model.safetensors").unlink()
    check_refused("hf2mg", folder, tmp_path / "mg", [], ["no weights found", "pytorch_model*.bin", "hint: "])


def test_missing_shard_is_named(tmp_path):
    folder = make_source("deepseek2", tmp_path / "hf")
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:100], "model-00002-of-00002.safetensors": names[100:]}
    for file, chosen in parts.items():
        save_file({name: tensors[name] for name in chosen}, folder / file)
    (folder / "model.safetensors").unlink()
    check_refused("hf2mg", folder, tmp_path / "mg", [], ["2 files model*.safetensors", "index.json", "download it"])
    index = {"weight_map": {name: file for file, chosen in parts.items() for name in chosen}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-00002-of-00002.safetensors").unlink()
    fragments = ["model-00002-of-00002.safetensors does not exist", "Is the download complete?"]
    check_refused("hf2mg", folder, tmp_path / "mg", [], fragments)


def test_shard_that_the_index_knows_nothing_of_is_not_read(source, tmp_path):
    folder = copy_of(source, tmp_path)
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"")
    index = {"weight_map": dict.fromkeys(load_file(folder / "model.safetensors"), "model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert run_main("hf2mg", "--load-dir", folder, "--save-dir", tmp_path / "mg").code == 0


def test_unknown_model_types_are_named(source, tmp_path):
    fragments = ["unknown model type 'gpt9'", "installed: ", "qwen3-moe", "mscvt plugins"]
    check_refused("hf2mg", source, tmp_path / "mg", ["--model-type-hf", "gpt9"], fragments)
    folder = copy_of(source, tmp_path)
    change_config(folder, model_type="gpt9")
    check_refused("hf2mg", folder, tmp_path / "mg", [], ["model_type 'gpt9'", "no installed plugin", "--model-type-hf"])
    change_config(folder, model_type=["qwen3"])
    check_refused("hf2mg", folder, tmp_path / "mg", [], ["model_type ['qwen3']"])


def test_all_missing_and_left_over_tensors_and_wrong_shapes_are_listed_at_once(source, tmp_path):
    folder = copy_of(source, tmp_path)
    gone = [QKV.format(1, "q"), QKV.format(5, "v"), "model.norm.weight"]
    extra = ["model.layers.0.self_attn.q_proj.bias", "model.layers.8.mlp.up_proj.weight", "visual.patch.weight"]
    reshaped = "model.layers.2.mlp.down_proj.weight"

    def change(tensors):
        for name in gone:
            del tensors[name]
        tensors |= {name: torch.ones(3) for name in extra}
        tensors[reshaped] = tensors[reshaped].T.contiguous()

    change_tensors(folder, change)
    fragments = ["7 faults", *(f"missing: {name}\n" for name in gone), *(f"no rule takes: {name}\n" for name in extra)]
    check_refused(
        "hf2mg", folder, tmp_path / "mg", [], [*fragments, f"{reshaped} has the shape [80, 48], expected [48, 80]"]
    )


def test_attention_biases_are_refused_where_the_family_has_none(tmp_path):
    folder = make_source("llama2", tmp_path / "hf")
    biases = [f"model.layers.{layer}.self_attn.{part}_proj.bias" for layer in range(8) for part in "qkv"]
    change_tensors(folder, lambda tensors: tensors.update({name: torch.ones(48) for name in biases}))
    folded = [f"no rule takes: model.layers.{{0-7}}.self_attn.{part}_proj.bias (8)\n" for part in "qkv"]
    check_refused("hf2mg", folder, tmp_path / "mg", [], ["24 faults", *folded])


def test_shapes_that_contradict_the_configuration_are_all_listed(source, tmp_path):
    folder = copy_of(source, tmp_path)
    change_config(folder, num_key_value_heads=2)
    said = check_refused("hf2mg", folder, tmp_path / "mg", [], ["16 faults", "config.json", "different models"])
    for part in "kv":
        assert f"model.layers.{{0-7}}.self_attn.{part}_proj.weight has the shape [40, 48], expected [20, 48]" in said


def test_different_dtypes_in_one_tensor_are_refused(source, tmp_path):
    folder = copy_of(source, tmp_path)
    name = QKV.format(3, "k")
    change_tensors(folder, lambda tensors: tensors.update({name: tensors[name].float()}))
    fragments = ["decoder.layers.3.self_attention.linear_qkv.weight", "BF16, F32", "--dtype"]
    check_refused("hf2mg", folder, tmp_path / "mg", [], fragments)


def test_sizes_that_do_not_divide_are_all_listed(source, tmp_path):
    folder = copy_of(source, tmp_path)
    change_config(folder, vocab_size=97, intermediate_size=81)
    fragments = ["faults", "97 vocabulary rows", "81 FFN rows", f"{TP} 2", "--make-vocab-size-divisible-by"]
    check_refused("hf2mg", folder, tmp_path / "mg", [TP, "2"], fragments)


@pytest.mark.parametrize(
    "only", ["pp", "pp=", "pp=x", "pp=0,pp=1", "gpu=0", "pp=7", "pp=1-0", "pp=-1", "file=1", "pp=0;ep=1"]
)
def test_part_that_can_not_be_understood_is_refused(only, source, tmp_path):
    options = ["--target-pipeline-parallel-size", "2", "--only", only]
    check_refused("hf2mg", source, tmp_path / "mg", options, [f"--only {only}", "hint: Write it like pp=3"])


@pytest.mark.parametrize("flag", ["--noop-layers", "--num-layer-list"])
@pytest.mark.parametrize("text", ["", "a", "1,,2", "1;2", "1.5", "[1,2]", "1-3"])
def test_list_that_is_none_is_wrong_usage(flag, text, source, tmp_path):
    outcome = run_main("hf2mg", "--load-dir", source, "--save-dir", tmp_path / "mg", flag, text)
    assert outcome.code == 2
    assert flag in outcome.err
    assert "Traceback" not in outcome.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [[TP, "two"], [TP], ["--no-such-option"], ["--dtype", "int4"], ["--workers", "0"], ["--num-layers", "1.5"]],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(options, source, tmp_path):
    outcome = run_main("hf2mg", "--load-dir", source, "--save-dir", tmp_path / "mg", *options)
    assert outcome.code == 2
    assert options[0] in outcome.err
    assert not list(tmp_path.iterdir())


def test_save_dir_that_is_taken_is_left_alone(source, checkpoint, tmp_path):
    for command, load_dir in (("hf2mg", source), ("mg2hf", checkpoint)):
        taken = tmp_path / command
        taken.mkdir()
        (taken / "notes.txt").write_text("mine")
        check_refused(command, load_dir, taken, [], ["exists and is not empty (notes.txt)", "--overwrite"])
        check_refused(command, load_dir, taken, ["--overwrite"], ["is no checkpoint", "notes.txt"])
        assert (taken / "notes.txt").read_text() == "mine"


def test_save_dir_that_is_a_file_or_a_link_to_one_is_refused(source, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        check_refused("hf2mg", source, tmp_path / name, ["--overwrite"], ["exists and is not a folder"])


def test_save_dir_below_a_file_is_refused(source, tmp_path):
    (tmp_path / "file").write_text("mine")
    outcome = run_main("hf2mg", "--load-dir", source, "--save-dir", tmp_path / "file" / "b")
    assert outcome.code == 1
    assert f"error: {tmp_path / 'file'}: " in outcome.err
    assert (tmp_path / "file").read_text() == "mine"


def test_missing_parents_of_the_save_dir_are_made(source, tmp_path):
    assert run_main("hf2mg", "--load-dir", source, "--save-dir", tmp_path / "a" / "b" / "c").code == 0
    assert (tmp_path / "a" / "b" / "c" / "latest_checkpointed_iteration.txt").exists()


def test_save_dir_that_is_the_load_dir_is_refused(source, tmp_path):
    folder = copy_of(source, tmp_path)
    check_refused("hf2mg", folder, folder, ["--overwrite"], [f"{folder}: ", "hint: Choose another --save-dir"])


def test_scales_without_dequantize_are_refused(source, tmp_path):
    folder = copy_of(source, tmp_path)
    name = QKV.format(0, "q")

    def change(tensors):
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)
        tensors[name + "_scale_inv"] = torch.ones(1, 1)

    change_tensors(folder, change)
    check_refused("hf2mg", folder, tmp_path / "mg", [], ["1 weights are FP8", name, "hint: --dequantize"])


def test_embedding_and_head_that_differ_are_refused_where_they_are_tied(source, tmp_path):
    folder = copy_of(source, tmp_path)
    change_config(folder, tie_word_embeddings=True)
    fragments = ["lm_head.weight differs from model.embed_tokens.weight", "tie_word_embeddings"]
    check_refused("hf2mg", folder, tmp_path / "mg", [], fragments)


def test_missing_ranks_are_all_named(checkpoint, tmp_path):
    folder = copy_of(checkpoint, tmp_path)
    for name in ("mp_rank_01_000", "mp_rank_01_001"):
        shutil.rmtree(folder / "iter_0000001" / name)
    check_refused("mg2hf", folder, tmp_path / "hf", [], ["2 of 4 ranks", "mp_rank_01_000, mp_rank_01_001"])


def test_rank_that_args_know_nothing_of_is_refused(checkpoint, tmp_path):
    folder = copy_of(checkpoint, tmp_path)
    shutil.copytree(folder / "iter_0000001" / "mp_rank_00_000", folder / "iter_0000001" / "mp_rank_02_000")
    check_refused("mg2hf", folder, tmp_path / "hf", [], ["mp_rank_02_000", "TP 2, PP 2"])


@pytest.mark.parametrize("said", ["", "latest", "-1", "2", "1 2", "\x00", "9" * 5000, "../1"])
def test_tracker_that_names_no_iteration_is_refused(said, checkpoint, tmp_path):
    folder = copy_of(checkpoint, tmp_path)
    (folder / "latest_checkpointed_iteration.txt").write_text(said)
    check_refused("mg2hf", folder, tmp_path / "hf", [], [str(folder)])


def test_missing_tracker_and_iteration_are_named(checkpoint, tmp_path):
    folder = copy_of(checkpoint, tmp_path)
    check_refused(
        "mg2hf", folder, tmp_path / "hf", ["--iteration", "500"], ["iter_0000500", "iter_0000001", "--iteration"]
    )
    (folder / "latest_checkpointed_iteration.txt").unlink()
    check_refused(
        "mg2hf",
        folder,
        tmp_path / "hf",
        [],
        ["has no latest_checkpointed_iteration.txt", "iter_0000001", "--iteration"],
    )


def test_configuration_of_another_model_is_refused_on_the_way_back(source, checkpoint, tmp_path):
    folder = copy_of(source, tmp_path)
    change_config(folder, hidden_size=64, num_hidden_layers=4)
    fragments = [
        "hidden_size: the checkpoint's args record 48, config.json says 64",
        "num_layers",
        "8",
        "4",
        "--hf-cfg-dir",
    ]
    check_refused("mg2hf", checkpoint, tmp_path / "hf", ["--hf-cfg-dir", folder], fragments)
