"""Which files of a folder are its weights: those that transformers loads, and a note on the others."""

import json

import pytest
import torch
from safetensors.torch import save_file

from mscvt.errors import MscvtError
from mscvt.formats.huggingface.reader import HuggingFaceSource
from mscvt.tensors.computing import values_of

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
BIN_INDEX = "pytorch_model.bin.index.json"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "hf").mkdir()
    return tmp_path / "hf"


def put(folder, *names):
    """Write files of weights, each with one tensor `w` that holds the number of the file."""
    for number, name in enumerate(names):
        tensors = {"w": torch.tensor([float(number)])}
        if name.endswith(".safetensors"):
            save_file(tensors, folder / name)
        else:
            torch.save(tensors, folder / name)


def put_index(folder, name, files):
    (folder / name).write_text(json.dumps({"weight_map": files}))


def value(source, name="w"):
    return values_of(source.tensor(name), 0, (1,), (1,)).item()


def put_shards(folder, index=INDEX):
    ending = "safetensors" if index == INDEX else "bin"
    names = [f"{(ending == 'bin' and 'pytorch_model') or 'model'}-0000{n}-of-00002.{ending}" for n in (1, 2)]
    for number, name in enumerate(names):
        tensors = {"wx"[number]: torch.tensor([10.0 + number])}
        save_file(tensors, folder / name) if ending == "safetensors" else torch.save(tensors, folder / name)
    put_index(folder, index, {"w": names[0], "x": names[1]})
    return names


def test_single_file_is_taken_before_everything_else(folder):
    put(folder, "model.safetensors", "pytorch_model.bin", "model.fp16.safetensors", "consolidated.safetensors")
    put_shards(folder)
    source = HuggingFaceSource(folder)
    assert value(source) == 0.0
    assert source.files == (folder / "model.safetensors",)
    assert source.notes == (
        f"not read: consolidated.safetensors, {FIRST}, {SECOND}, model.fp16.safetensors, pytorch_model.bin; "
        "transformers takes model.safetensors first",
        f"not read: {INDEX}; transformers takes model.safetensors first",
    )


def test_stale_index_whose_shards_are_gone_is_not_followed(folder):
    put(folder, "model.safetensors")
    put_index(folder, INDEX, {"w": FIRST, "x": SECOND})
    source = HuggingFaceSource(folder)
    assert value(source) == 0.0
    assert source.notes == (f"not read: {INDEX}; transformers takes model.safetensors first",)


def test_index_is_taken_before_a_bin_file(folder):
    put(folder, "pytorch_model.bin")
    put_shards(folder)
    source = HuggingFaceSource(folder)
    assert (value(source), value(source, "x")) == (10.0, 11.0)
    assert source.notes == (f"not read: pytorch_model.bin; transformers takes {INDEX} first",)


def test_bin_file_is_taken_before_its_index(folder):
    put(folder, "pytorch_model.bin")
    put_shards(folder, BIN_INDEX)
    source = HuggingFaceSource(folder)
    assert value(source) == 0.0
    assert source.files == (folder / "pytorch_model.bin",)


def test_index_of_bin_files_is_taken_last(folder):
    names = put_shards(folder, BIN_INDEX)
    source = HuggingFaceSource(folder)
    assert (value(source), value(source, "x")) == (10.0, 11.0)
    assert source.files == tuple(folder / name for name in names)
    assert source.notes == ()


def test_bin_file_is_taken_beside_shards_without_their_index(folder):
    put(folder, "pytorch_model.bin", FIRST)
    source = HuggingFaceSource(folder)
    assert value(source) == 0.0
    assert source.notes == (f"not read: {FIRST}; transformers takes pytorch_model.bin first",)


def test_what_a_training_run_leaves_beside_is_no_weights(folder):
    put(folder, "model.safetensors")
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "tokenizer.model"):
        (folder / name).write_bytes(b"anything")
    (folder / "original").mkdir()
    put(folder / "original", "consolidated.00.pth")
    source = HuggingFaceSource(folder)
    assert list(source.tensors) == ["w"]
    assert source.notes == ()


def test_adapter_beside_the_weights_is_noted_as_not_applied(folder):
    put(folder, "model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base\x1b[2J"}))
    (folder / "adapter_model.safetensors").write_bytes(b"anything")
    source = HuggingFaceSource(folder)
    assert value(source) == 0.0
    assert source.notes == (
        "adapter_model.safetensors: the adapter of some/base\\x1b[2J is not applied, "
        "the weights are those of model.safetensors",
    )


def test_names_of_many_files_that_are_not_read_are_not_all_shown(folder):
    put(folder, "model.safetensors")
    for number in range(9):
        (folder / f"consolidated-{number}.safetensors").write_bytes(b"")
    (note,) = HuggingFaceSource(folder).notes
    assert "consolidated-4.safetensors and 4 others;" in note
    assert "consolidated-5" not in note


REFUSED = {
    "shards_without_index": ((FIRST, SECOND), "2 files model*.safetensors and no model.safetensors.index.json"),
    "bin_shards_without_index": (("pytorch_model-00001-of-00002.bin",), "no pytorch_model.bin.index.json"),
    "variant": (("model.fp16.safetensors",), "has no model.safetensors, only model.fp16.safetensors"),
    "bin_variant": (("pytorch_model.fp16.bin",), "has no pytorch_model.bin, only pytorch_model.fp16.bin"),
    "consolidated": (("consolidated.safetensors",), "no weights that transformers would load"),
    "own_format": (("consolidated.00.pth",), "only consolidated.00.pth"),
    "gguf": (("model-q4.gguf",), "only model-q4.gguf"),
    "adapter": (("adapter_model.safetensors",), "is a LoRA adapter of another model, not a model"),
    "nothing": ((), "no weights found, neither model*.safetensors nor pytorch_model*.bin"),
    "only_training_state": (("optimizer.pt", "training_args.bin"), "no weights found"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_folder_that_transformers_would_not_load_is_refused_with_the_fix(case, folder):
    names, said = REFUSED[case]
    (folder / "config.json").write_text("{}")
    for name in names:
        (folder / name).write_bytes(b"")
    with pytest.raises(MscvtError) as caught:
        HuggingFaceSource(folder)
    assert said in caught.value.message
    assert caught.value.hint


def test_variant_is_read_after_the_link_that_the_hint_says(folder):
    put(folder, "model.fp16.safetensors")
    (folder / "config.json").write_text("{}")
    with pytest.raises(MscvtError) as caught:
        HuggingFaceSource(folder)
    _, _, command = caught.value.hint.partition("ln -s ")
    target, link = command.split()
    assert link == str(folder / "model.safetensors")
    (folder / "model.safetensors").symlink_to(target)
    assert value(HuggingFaceSource(folder)) == 0.0


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_git_lfs_pointer_is_named_as_one(name, folder):
    (folder / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(MscvtError, match=f"{name}: is a Git LFS pointer") as caught:
        HuggingFaceSource(folder)
    assert "git lfs pull" in caught.value.hint
