"""`mscvt new-plugin`: what it writes is built, installed into a fresh environment and passes its own tests.

The fresh environment sees the core and what packages depend on, and no plugin of this repository.
"""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import tomllib
import torch

from command_line import run_main
from mscvt.plugins.registry import load_registry
from mscvt.testing import random_reference, save_huggingface, source_tensors
from small_configurations import LLAMA, MIXTURE

pytestmark = pytest.mark.xdist_group("new-plugin")  # one process makes the environment

ROOT = Path(__file__).parents[1]
SIZES = {
    "num_hidden_layers": 4,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "vocab_size": 90,
    "max_position_embeddings": 64,
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2}
MODELS = {
    "qwen3_moe": {**EXPERTS, "moe_intermediate_size": 14, "head_dim": 8, "mlp_only_layers": [1]},
    "olmoe": EXPERTS,
    "granite": {"embedding_multiplier": 12.0, "logits_scaling": 8.0, "tie_word_embeddings": True},
}


def run(*command, cwd=None):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    done = subprocess.run(
        [str(word) for word in command], check=False, cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of the fresh environment."""
    fresh = tmp_path_factory.mktemp("fresh")
    venv.create(fresh, symlinks=True)
    (packages,) = fresh.glob("lib/python*/site-packages")
    for installed in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in Path(installed).iterdir():
            if not path.name.startswith(("mscvt", "__editable__", "pip")):
                (packages / path.name).symlink_to(path)
    (packages / "core.pth").write_text(f"{ROOT / 'core/src'}\n")
    information = packages / "mscvt-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: mscvt\nVersion: 0.1.0\n")
    return fresh / "bin/python"


def install(python, folder):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    run(*pip, "install", "--no-index", "--no-deps", "--no-build-isolation", folder)


def passed(python, folder):
    return run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=folder).splitlines()[-1]


def test_plain_plugin_installs_is_found_and_passes(python, tmp_path):
    target = tmp_path / "mscvt-abacus-2"
    outcome = run_main("new-plugin", "abacus-2", "--to", target)
    assert outcome.code == 0, outcome.err
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()) == [
        ".github/workflows/test.yml",
        "README.md",
        "pyproject.toml",
        "src/mscvt_abacus_2/__init__.py",
        "tests/test_abacus_2.py",
    ]
    install(python, target)
    plugins = json.loads(run(python, "-m", "mscvt", "plugins", "--json"))["plugins"]
    assert ("mscvt-abacus-2", ["abacus-2"], None) in [
        (plugin["distribution"], plugin["model_types"], plugin["error"]) for plugin in plugins
    ]
    assert " passed" in passed(python, target)


@pytest.mark.parametrize("model", MODELS)
def test_plugin_from_a_checkpoint_passes_against_the_real_class(model, python, tmp_path):
    random_reference({"model_type": model, **SIZES, **MODELS[model]}, tmp_path / "hf")
    target, name = tmp_path / "plugin", f"{model.replace('_', '-')}-again"
    said = run(python, "-m", "mscvt", "new-plugin", name, "--from", tmp_path / "hf", "--to", target)
    assert "not placed" not in said
    install(python, target)
    assert "ForCausalLM" in next((target / "tests").glob("*.py")).read_text()
    assert " passed" in passed(python, target)


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
    assert "return DECODER.get(block)" in module


def test_names_with_an_own_prefix_are_entries_of_their_own(tmp_path):
    tensors = {
        name.replace("model.layers.", "model.decoder.blocks.").replace("self_attn.q_proj", "attention.wq"): tensor
        for name, tensor in source_tensors(load_registry().family("llama2"), LLAMA).items()
    }
    shown, module = written(tmp_path, LLAMA, tensors)
    assert '"attention.q": "model.decoder.blocks.{layer}.attention.wq.weight"' in module
    assert not [line for line in shown["unplaced"] if "blocks" in line]


def test_dense_layers_that_no_field_tells_are_listed_and_said(tmp_path):
    config = {**MIXTURE, "mlp_only_layers": [1]}
    tensors = source_tensors(load_registry().family("qwen3-moe"), config)
    shown, module = written(tmp_path, {**config, "mlp_only_layers": []}, tensors)
    assert "DENSE_LAYERS = [1]\n" in module
    assert any("[1] are the dense ones" in line for line in shown["unplaced"])


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
