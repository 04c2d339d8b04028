"""`config.json` of trained weights says what the weights are, and a note says each change."""

import json

import pytest

from mscvt.formats.huggingface.config_files import adapt_config, copy_config_files, find_config_files
from mscvt.formats.huggingface.writer import write_index
from mscvt.model.family import ModelType
from mscvt.model.fields import count
from mscvt.plan.contents import OutputFile

TYPE = ModelType(
    "sparse",
    ("sparse",),
    fields={
        "first_k_dense_replace": count("first_k_dense_replace", default=0, least=0),
        "mtp_num_layers": count("num_nextn_predict_layers", default=0, least=0),
    },
)
CONFIG = {
    "model_type": "sparse",
    "num_hidden_layers": 6,
    "num_nextn_predict_layers": 1,
    "first_k_dense_replace": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": 50,
}
SAME = {
    "num_layers": 6,
    "mtp_num_layers": 1,
    "first_k_dense_replace": 2,
    "norm_epsilon": 1e-6,
    "rotary_base": 10000,
    "tie_word_embeddings": True,
    "vocab_size": 50,
}


def adapted(config=CONFIG, dtype="bfloat16", **changes):
    return adapt_config(config, SAME | changes, TYPE, dtype)


def test_configuration_of_unchanged_weights_stays_as_it_is():
    assert adapted() == (CONFIG, ())


@pytest.mark.parametrize(
    ("name", "value", "path", "written", "was"),
    [
        ("rotary_base", 1000000, "rope_theta", 1000000.0, "10000.0"),
        ("norm_epsilon", 0.01, "rms_norm_eps", 0.01, "1e-06"),
        ("tie_word_embeddings", False, "tie_word_embeddings", False, "true"),
        ("num_layers", 4, "num_hidden_layers", 4, "6"),
        ("mtp_num_layers", 0, "num_nextn_predict_layers", 0, "1"),
        ("first_k_dense_replace", 1, "first_k_dense_replace", 1, "2"),
    ],
)
def test_what_training_changed_is_written_and_said(name, value, path, written, was):
    config, notes = adapted(**{name: value})
    assert config == CONFIG | {path: written}
    assert type(config[path]) is type(written)
    assert notes == (f"config.json: {path} is {json.dumps(written)}, as the checkpoint has it; it was {was}",)


def test_every_change_has_a_note_of_its_own():
    config, notes = adapted(rotary_base=5, norm_epsilon=0.5, num_layers=3, dtype="float16")
    assert len(notes) == 4
    assert config["torch_dtype"] == "float16"


@pytest.mark.parametrize("both", [False, True])
def test_rotary_base_is_written_where_either_generation_holds_it(both):
    old = {name: value for name, value in CONFIG.items() if both or name != "rope_theta"}
    nested = old | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
    config, notes = adapted(nested, rotary_base=5000)
    expected = nested | {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}
    assert config == expected | ({"rope_theta": 5000.0} if both else {})
    assert len(notes) == 1 + both
    assert nested["rope_parameters"]["rope_theta"] == 10000.0


def test_value_that_the_configuration_leaves_to_its_default_is_written_where_it_differs():
    bare = {"num_hidden_layers": 6, "first_k_dense_replace": 2, "num_nextn_predict_layers": 1}
    assert adapted(bare, tie_word_embeddings=False) == (bare, ())
    config, notes = adapted(bare, rotary_base=5, norm_epsilon=0.5)
    assert config == bare | {"rope_theta": 5, "rms_norm_eps": 0.5, "tie_word_embeddings": True}
    assert notes[0] == "config.json: rope_theta is 5, as the checkpoint has it; it was not there"


def test_lists_of_layers_keep_the_layers_that_were_kept():
    config = CONFIG | {"layer_types": list("abcdef"), "mlp_layer_types": list("DDMMMM"), "eos_token_id": [1] * 6}
    reduced, notes = adapted(config, num_layers=3, first_k_dense_replace=1)
    assert (reduced["layer_types"], reduced["mlp_layer_types"]) == (list("acd"), list("DMM"))
    assert reduced["eos_token_id"] == [1] * 6
    assert "config.json: layer_types has 3 entries, for the layers that were kept; it had 6" in notes


def test_quantization_is_left_out_of_the_configuration_of_plain_weights():
    config, notes = adapted(CONFIG | {"quantization_config": {"quant_method": "fp8"}, "expert_dtype": "fp4"})
    assert config == CONFIG
    assert [note.split()[1] for note in notes] == ["quantization_config", "expert_dtype"]


def test_dtype_of_either_generation_is_that_of_the_weights():
    for name in ("dtype", "torch_dtype"):
        config, notes = adapted(
            {**{k: v for k, v in CONFIG.items() if k != "torch_dtype"}, name: "bfloat16"}, "float32"
        )
        assert config[name] == "float32"
        assert len(notes) == 1


COPIED = ("chat_template.jinja", "config.json", "generation_config.json", "modeling.py", "tokenizer.json", "vocab.txt")
LEFT = (
    ".hidden.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "hf_quant_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "params.json",
    "pytorch_model.bin.index.json",
    "README.md",
    "trainer_state.json",
    "training_args.bin",
)


def test_files_of_other_weights_and_runs_are_not_copied(tmp_path):
    source, target = tmp_path / "hf", tmp_path / "out"
    source.mkdir()
    target.mkdir()
    for name in (*COPIED, *LEFT):
        (source / name).write_text("{}")
    files = find_config_files(source)
    copy_config_files(files, target, {}, {})
    assert sorted(path.name for path in target.iterdir()) == sorted(COPIED)


def test_changed_configuration_replaces_the_copy_and_an_unchanged_one_keeps_its_text(tmp_path):
    (tmp_path / "config.json").write_text('{"a":1}')
    (tmp_path / "out").mkdir()
    copy_config_files([tmp_path / "config.json"], tmp_path / "out", {"a": 1}, {"a": 1})
    assert (tmp_path / "out" / "config.json").read_text() == '{"a":1}'
    copy_config_files([tmp_path / "config.json"], tmp_path / "out", {"a": 1}, {"a": 2})
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"a": 2}


def test_index_is_written_for_several_files_and_not_for_a_single_one(tmp_path):
    write_index(tmp_path, [OutputFile("model.safetensors", {"a": ("BF16", (3,))})])
    assert list(tmp_path.iterdir()) == []
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    write_index(tmp_path, [OutputFile(name, {key: ("BF16", (3,))}) for name, key in zip(names, "ba", strict=True)])
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index == {"metadata": {"total_size": 12}, "weight_map": {"a": names[1], "b": names[0]}}
