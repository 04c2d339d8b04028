"""A family from outside: wheels of the core, the example plugin and a broken one, installed into a fresh environment.

The fresh environment sees what the packages depend on (torch and the rest, linked, not installed again) and
nothing else of mscvt: no plugin of this repository, no source tree.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from golden_cases import huggingface_digests
from mscvt.testing import content, digest, save_huggingface

pytestmark = pytest.mark.xdist_group("third-party")  # one process builds the wheels and the environment

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/plugin"
BROKEN = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "mscvt-broken"
version = "0.7"

[project.entry-points.mscvt]
broken = "mscvt_broken"
"""


def run(*command, cwd=None):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    words = [str(word) for word in command]
    done = subprocess.run(words, check=False, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Copies to build from, because setuptools writes beside the sources."""
    folder = tmp_path_factory.mktemp("sources")
    unwanted = shutil.ignore_patterns("*.egg-info", "build", "__pycache__")
    shutil.copytree(ROOT / "core", folder / "core", ignore=unwanted)
    shutil.copytree(EXAMPLE, folder / "example", ignore=unwanted)
    broken = folder / "broken/src/mscvt_broken"
    broken.mkdir(parents=True)
    (folder / "broken/pyproject.toml").write_text(BROKEN)
    (broken / "__init__.py").write_text("import a_library_that_nobody_has\n")
    return folder


@pytest.fixture(scope="module")
def programs(sources, tmp_path_factory):
    """The folder of `python` and `mscvt` in the fresh environment."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    wheels = tmp_path_factory.mktemp("wheels")
    projects = [sources / name for name in ("core", "example", "broken")]
    run(*pip, "wheel", "--no-build-isolation", "--no-index", "--no-deps", "--wheel-dir", wheels, *projects)
    fresh = tmp_path_factory.mktemp("fresh")
    venv.create(fresh, symlinks=True)
    (packages,) = fresh.glob("lib/python*/site-packages")
    for installed in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in Path(installed).iterdir():
            if not path.name.startswith(("mscvt", "__editable__", "pip")):
                (packages / path.name).symlink_to(path)
    python = fresh / "bin/python"
    names = ("mscvt-olmoe", "mscvt-broken")
    run(*pip, "--python", python, "install", "--no-index", "--find-links", wheels, *names)
    return fresh / "bin"


def test_example_is_found_and_the_broken_plugin_reported(programs):
    example, broken = sorted(
        json.loads(run(programs / "mscvt", "plugins", "--json"))["plugins"], key=lambda plugin: plugin["version"]
    )
    assert example == {
        "distribution": "mscvt-olmoe",
        "version": "0.1.0",
        "entry_point": "olmoe = mscvt_olmoe",
        "model_types": ["olmoe"],
        "error": None,
    }
    assert (broken["distribution"], broken["version"], broken["model_types"]) == ("mscvt-broken", "0.7", [])
    assert "ModuleNotFoundError: No module named 'a_library_that_nobody_has'" in broken["error"]["message"]


CONFIG = {
    "model_type": "olmoe",
    "torch_dtype": "bfloat16",
    "num_hidden_layers": 2,
    "hidden_size": 24,
    "intermediate_size": 10,
    "num_experts": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 22,
}
LAYER = {
    "input_layernorm.weight": (24,),
    "self_attn.q_proj.weight": (24, 24),
    "self_attn.k_proj.weight": (8, 24),
    "self_attn.v_proj.weight": (8, 24),
    "self_attn.o_proj.weight": (24, 24),
    "self_attn.q_norm.weight": (24,),
    "self_attn.k_norm.weight": (8,),
    "post_attention_layernorm.weight": (24,),
    "mlp.gate.weight": (4, 24),
    **{f"mlp.experts.{expert}.{half}_proj.weight": (10, 24) for expert in range(4) for half in ("gate", "up")},
    **{f"mlp.experts.{expert}.down_proj.weight": (24, 10) for expert in range(4)},
}
SHAPES = {
    "model.embed_tokens.weight": (22, 24),
    **{f"model.layers.{layer}.{name}": shape for layer in range(2) for name, shape in LAYER.items()},
    "model.norm.weight": (24,),
    "lm_head.weight": (22, 24),
}


def test_example_converts_both_ways_through_the_command_line(programs, tmp_path):
    hf, mg, back = tmp_path / "hf", tmp_path / "mg", tmp_path / "back"
    tensors = {name: content(name, shape) for name, shape in SHAPES.items()}
    save_huggingface(hf, CONFIG, tensors)
    split = ["--target-tensor-parallel-size", 2, "--target-expert-parallel-size", 2]
    run(programs / "mscvt", "hf2mg", "--load-dir", hf, "--save-dir", mg, *split)
    for rank in range(2):
        with torch.serialization.safe_globals([Namespace]):
            shard = torch.load(mg / f"iter_0000001/mp_rank_{rank:02d}_001/model_optim_rng.pt", weights_only=True)
        model = shard["model"]
        norm = model["decoder.layers.1.self_attention.q_layernorm.weight"]
        assert torch.equal(norm, tensors["model.layers.1.self_attn.q_norm.weight"])
        down = tensors["model.layers.1.mlp.experts.3.down_proj.weight"]
        mine = model["decoder.layers.1.mlp.experts.local_experts.1.linear_fc2.weight"]
        assert torch.equal(mine.view(torch.int16), down[:, 5 * rank : 5 * rank + 5].contiguous().view(torch.int16))
        assert shard["args"].model_type_hf == "olmoe"
    run(programs / "mscvt", "mg2hf", "--load-dir", mg, "--save-dir", back)
    assert huggingface_digests(back) == {name: digest(tensor) for name, tensor in tensors.items()}


def test_tests_of_the_example_pass(programs, sources):
    shown = run(programs / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=sources / "example")
    assert " passed" in shown.splitlines()[-1]
