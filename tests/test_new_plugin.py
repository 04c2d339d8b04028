"""`mscvt new-plugin`: what it writes is built, installed into a fresh environment and passes its own tests.

The fresh environment sees the core and what packages depend on, and no plugin of this repository.
"""

import json

import pytest
import tomllib
import torch

from biased_plugin import POINT
from command_line import run_main
from fresh_environment import PIP, ROOT, make_environment, passed, run
from mscvt.plugins.registry import load_registry
from mscvt.testing import random_reference, save_huggingface, source_tensors
from small_configurations import LLAMA, MIXTURE

SIZES = {
    "num_hidden_layers": 4,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "vocab_size": 90,
    "max_position_embeddings": 64,
}
MODELS = {
    "granite": {"embedding_multiplier": 12.0, "logits_scaling": 8.0, "tie_word_embeddings": True},
    "qwen3-moe": {
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 14,
        "head_dim": 8,
        "mlp_only_layers": [1],
    },
}


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of an environment with the core alone."""
    python, packages = make_environment(tmp_path_factory.mktemp("fresh"))
    (packages / "core.pth").write_text(f"{ROOT / 'core/src'}\n")
    information = packages / "mscvt-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: mscvt\nVersion: 0.1.0\n")
    return python


def test_plugins_as_they_are_written_install_are_found_and_pass(python, tmp_path):
    plain = tmp_path / "mscvt-abacus-2"
    outcome = run_main("new-plugin", "abacus-2", "--to", plain)
    assert outcome.code == 0, outcome.err
    assert sorted(str(path.relative_to(plain)) for path in plain.rglob("*") if path.is_file()) == [
        ".github/workflows/test.yml",
        "README.md",
        "pyproject.toml",
        "src/mscvt_abacus_2/__init__.py",
        "tests/test_abacus_2.py",
    ]
    folders = [plain]
    for model, config in MODELS.items():
        random_reference({"model_type": model.replace("-", "_"), **SIZES, **config}, tmp_path / model)
        folders.append(tmp_path / f"plugin-{model}")
        outcome = run_main("new-plugin", f"{model}-again", "--from", tmp_path / model, "--to", folders[-1])
        assert outcome.code == 0, outcome.err
        assert "not placed" not in outcome.out
        assert "ForCausalLM" in next((folders[-1] / "tests").glob("*.py")).read_text()
    run(*PIP, "--python", python, "install", "--no-index", "--no-deps", "--no-build-isolation", *folders)
    plugins = json.loads(run(python, "-m", "mscvt", "plugins", "--json"))["plugins"]
    assert [(plugin["distribution"], plugin["model_types"], plugin["error"]) for plugin in plugins] == [
        (f"mscvt-{name}", [name], None) for name in ("abacus-2", *(f"{model}-again" for model in MODELS))
    ]
    assert " passed" in passed(python, *folders)


def written(tmp_path, config, tensors, name="mine"):
    save_huggingface(tmp_path / "hf", config, tensors)
    outcome = run_main("new-plugin", name, "--from", tmp_path / "hf", "--to", tmp_path / "plugin", "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out), (tmp_path / f"plugin/src/mscvt_{name}/__init__.py").read_text()


def test_what_has_no_place_is_listed_and_stands_in_the_module(tmp_path):
    tensors = source_tensors(load_registry().family("llama2"), LLAMA)
    tensors |= {f"model.layers.{i}.self_attn.abacus.weight": torch.zeros(3, 5) for i in range(4)}
    shown, module = written(tmp_path, LLAMA, tensors)
    (line,) = shown["unplaced"]
    assert line == "model.layers.{0-3}.self_attn.abacus.weight [3, 5] x4"
    assert f"# Not placed yet:\n#   {line}\n" in module
    assert 'ModelType("mine", ("llama",), names=DECODER)' in module


def test_names_with_an_own_prefix_are_entries_of_their_own(tmp_path):
    tensors = {
        name.replace("model.layers.", "model.decoder.blocks.").replace("self_attn.q_proj", "attention.wq"): tensor
        for name, tensor in source_tensors(load_registry().family("llama2"), LLAMA).items()
    }
    shown, module = written(tmp_path, LLAMA, tensors)
    assert '"attention.q": "model.decoder.blocks.{layer}.attention.wq.weight"' in module
    assert not [line for line in shown["unplaced"] if "blocks" in line]


def test_mlp_without_a_gate_and_its_biases_are_named(tmp_path):
    config = {**LLAMA, "model_type": "starcoder2", "use_bias": True}
    shown, module = written(tmp_path, config, source_tensors(load_registry([POINT]).family("starcoder2"), config))
    for role, name in (("up", "c_fc"), ("down", "c_proj")):
        assert f'"mlp.{role}": "model.layers.{{layer}}.mlp.{name}.weight"' in module
        assert f'"mlp.{role}_bias": "model.layers.{{layer}}.mlp.{name}.bias"' in module
    assert not [line for line in shown["unplaced"] if "mlp" in line]


def test_dense_layers_that_no_field_tells_are_listed_and_said(tmp_path):
    config = {**MIXTURE, "mlp_only_layers": [1]}
    tensors = source_tensors(load_registry().family("qwen3-moe"), config)
    shown, module = written(tmp_path, {**config, "mlp_only_layers": []}, tensors)
    assert "DENSE_LAYERS = [1]\n" in module
    assert any("[1] are the dense ones" in line for line in shown["unplaced"])


def test_tied_checkpoint_gives_the_head_a_name_and_its_field_the_default_of_the_class(tmp_path):
    tied = {**LLAMA, "tie_word_embeddings": True}
    tensors = source_tensors(load_registry().family("llama2"), tied)
    assert "lm_head.weight" not in tensors
    shown, module = written(tmp_path / "unknown", tied, tensors)
    assert 'FIELDS = {\n    "tie_word_embeddings": flag("tie_word_embeddings", default=True),\n}' in module
    assert "names=DECODER)" in module
    assert shown["unplaced"] == []
    known = {**tied, "architectures": ["LlamaForCausalLM"]}
    _, module = written(tmp_path / "known", known, tensors)
    assert "FIELDS" not in module, "the class takes a model for untied whose configuration doesn't say it"
    untied = {**LLAMA, "model_type": "smollm3", "architectures": ["SmolLM3ForCausalLM"]}
    _, module = written(tmp_path / "usual", untied, source_tensors(load_registry().family("llama2"), LLAMA))
    assert '"tie_word_embeddings": flag("tie_word_embeddings", default=True)' in module


@pytest.mark.parametrize("said", [5, [["full_attention"]], [None, {}]], ids=repr)
def test_layer_types_that_are_none_are_listed_as_what_nothing_reads(said, tmp_path):
    tensors = source_tensors(load_registry().family("llama2"), LLAMA)
    shown, _ = written(tmp_path, {**LLAMA, "architectures": ["Unknown"], "layer_types": said}, tensors)
    assert any("says layer_types, which nothing reads" in note for note in shown["notes"])


def test_what_the_configuration_says_that_nothing_reads_is_listed_and_stands_in_the_module(tmp_path):
    said = {"attention_bias": False, "hidden_act": "gelu", "no_rope_layers": [1, 1, 1, 0]}
    of_no_matter = {"initializer_range": 0.1, "attention_dropout": 0.1, "bos_token_id": 1, "sliding_window": None}
    config = {**LLAMA, **said, **of_no_matter, "layer_types": ["full_attention"] * 4}
    shown, module = written(tmp_path, config, source_tensors(load_registry().family("llama2"), LLAMA))
    (note,) = [note for note in shown["notes"] if "nothing reads" in note]
    assert note.startswith("config.json says attention_bias, hidden_act, no_rope_layers, which nothing reads")
    assert '#   hidden_act: "gelu"\n#   no_rope_layers: [1, 1, 1, 0]\n\n' in module


@pytest.mark.parametrize(
    ("model_type", "architecture", "size"),
    [("llama", "LlamaForCausalLM", 8), ("gpt_neox", "GPTNeoXForCausalLM", None), ("llama", "NobodysForCausalLM", None)],
)
def test_small_configuration_has_heads_of_a_size_of_their_own_where_the_class_takes_one(
    model_type, architecture, size, tmp_path
):
    config = {**LLAMA, "model_type": model_type, "architectures": [architecture]}
    written(tmp_path, config, source_tensors(load_registry().family("llama2"), LLAMA))
    test = (tmp_path / "plugin/tests/test_mine.py").read_text()
    assert (f'"head_dim": {size}' in test and '"hidden_size": 72' in test) is (size is not None)
    assert ('"hidden_size": 96' in test) is (size is None)
    assert (architecture in test) is (architecture != "NobodysForCausalLM")


def test_field_for_chosen_experts_is_found_under_other_names(tmp_path):
    tensors = source_tensors(load_registry().family("qwen3-moe"), MIXTURE)
    _, module = written(tmp_path, {**MIXTURE, "moe_k": 3}, tensors)
    assert '"moe_router_topk": count("moe_k")' in module


def test_reason_why_a_model_can_not_be_described_is_short_and_names_no_folder(tmp_path):
    tensors = source_tensors(load_registry().family("llama2"), LLAMA)
    shown, _ = written(tmp_path, {name: value for name, value in LLAMA.items() if name != "vocab_size"}, tensors)
    (line,) = [line for line in shown["unplaced"] if line.startswith("the model can't be described: ")]
    assert "vocab_size is missing" in line
    assert str(tmp_path) not in line


def test_name_that_is_taken_is_noted_without_a_checkpoint_too(tmp_path):
    outcome = run_main("new-plugin", "llama2", "--to", tmp_path / "plugin", "--json")
    assert json.loads(outcome.out)["notes"] == [
        "mscvt-llama serves the model type 'llama2' already; uninstall it, or choose another name"
    ]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("mscvt-mine", "mine"), ("Mine Family", "mine-family"), ("-x", "x"), ("../x", "x"), ("a'b", "a-b")],
)
def test_names_that_are_no_distribution_are_refused(name, hint, tmp_path):
    outcome = run_main("new-plugin", name, "--to", tmp_path / "plugin")
    assert outcome.code == 1, outcome
    assert hint in outcome.err.splitlines()[1]
    assert not (tmp_path / "plugin").exists()


def test_folder_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "kept").write_text("mine")
    outcome = run_main("new-plugin", "mine", "--to", tmp_path)
    assert outcome.code == 1
    assert "is there already" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_entry_point_of_what_is_written_names_the_module(tmp_path):
    run_main("new-plugin", "two-words", "--to", tmp_path / "plugin")
    project = tomllib.loads((tmp_path / "plugin/pyproject.toml").read_text())["project"]
    assert project["name"] == "mscvt-two-words"
    assert project["entry-points"] == {"mscvt": {"two_words": "mscvt_two_words"}}
