"""A family from outside: wheels of the core, the example plugin and a broken one, installed into a fresh environment.

The fresh environment sees what the packages depend on (torch and the rest, linked, not installed again) and
nothing else of mscvt: no plugin of this repository, no source tree.
"""

import json
import re
import shutil
from argparse import Namespace

import pytest
import torch

from fresh_environment import PIP, ROOT, make_environment, passed, run
from golden_cases import huggingface_digests
from mscvt.testing import content, digest, save_huggingface

pytestmark = pytest.mark.xdist_group("third-party")  # one process builds the wheels and the environment

EXAMPLE = ROOT / "examples/plugin"
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "mscvt-{name}"
version = "0.7"

[project.entry-points.mscvt]
{name} = "mscvt_{name}"
"""
HEAD = """
from mscvt import DECODER, TENSOR, ModelType, Rule, Source, hookimpl

MSCVT_API = 2

@hookimpl
def mscvt_names(block):
    return BLOCKS.get(block)

@hookimpl
def mscvt_model_types():
    return [ModelType(NAME, config_model_types=(NAME,))]
"""
MODULES = {
    "broken": "import a_library_that_nobody_has\n",
    "layout": HEAD
    + """
NAME = "layout"
PACKED = "model.layers.{layer}.self_attn.vkq.weight"
APART = ("attention.q", "attention.k", "attention.v")
OTHERS = {role: name for role, name in DECODER["attention"].items() if role not in APART}
BLOCKS = {**DECODER, "attention": OTHERS | {"attention.vkq": PACKED}}

@hookimpl
def mscvt_split_rules():
    segments = (f"(group slot[{slots}] channel) hidden" for slots in ("queries + 1", "queries", ":queries"))
    source = Source("attention.vkq", " | ".join(segments))
    return [Rule("self_attention.linear_qkv.weight", "(group slot channel) hidden", (source,), {"group": TENSOR})]
""",
    "placement": HEAD
    + """
NAME = "placement"
BLOCKS = DECODER

@hookimpl
def mscvt_placement(topology, layers):
    places = [(chunk.stage, chunk.name, number) for chunk, number in topology.place_layers()]
    return places[::-1]
""",
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Copies to build from, because setuptools writes beside the sources."""
    folder = tmp_path_factory.mktemp("sources")
    unwanted = shutil.ignore_patterns("*.egg-info", "build", "__pycache__")
    shutil.copytree(ROOT / "core", folder / "core", ignore=unwanted)
    shutil.copytree(EXAMPLE, folder / "olmoe", ignore=unwanted)
    for name, module in MODULES.items():
        package = folder / name / f"src/mscvt_{name}"
        package.mkdir(parents=True)
        (folder / name / "pyproject.toml").write_text(PROJECT.format(name=name))
        (package / "__init__.py").write_text(module)
    return folder


@pytest.fixture(scope="module")
def programs(sources, tmp_path_factory):
    """The folder of `python` and `mscvt` in the fresh environment."""
    wheels = tmp_path_factory.mktemp("wheels")
    names = ("olmoe", *MODULES)
    projects = [sources / name for name in ("core", *names)]
    run(*PIP, "wheel", "--no-build-isolation", "--no-index", "--no-deps", "--wheel-dir", wheels, *projects)
    python, _ = make_environment(tmp_path_factory.mktemp("fresh"))
    distributions = [f"mscvt-{name}" for name in names]
    run(*PIP, "--python", python, "install", "--no-index", "--find-links", wheels, *distributions)
    return python.parent


def test_example_is_found_and_the_broken_plugin_reported(programs):
    plugins = json.loads(run(programs / "mscvt", "plugins", "--json"))["plugins"]
    found = {plugin["distribution"]: plugin for plugin in plugins}
    assert found.keys() == {"mscvt-olmoe", *(f"mscvt-{name}" for name in MODULES)}
    assert found["mscvt-olmoe"] == {
        "distribution": "mscvt-olmoe",
        "version": "0.1.0",
        "entry_point": "olmoe = mscvt_olmoe",
        "model_types": ["olmoe"],
        "error": None,
        "notes": [],
    }
    broken = found["mscvt-broken"]
    assert (broken["version"], broken["model_types"]) == ("0.7", [])
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


DENSE_LAYER = {
    "input_layernorm.weight": (24,),
    "self_attn.q_proj.weight": (24, 24),
    "self_attn.k_proj.weight": (8, 24),
    "self_attn.v_proj.weight": (8, 24),
    "self_attn.o_proj.weight": (24, 24),
    "post_attention_layernorm.weight": (24,),
    "mlp.gate_proj.weight": (10, 24),
    "mlp.up_proj.weight": (10, 24),
    "mlp.down_proj.weight": (24, 10),
}


def dense_source(folder, model_type, layer):
    config = {key: value for key, value in CONFIG.items() if key != "num_experts"} | {"model_type": model_type}
    ends = {name: shape for name, shape in SHAPES.items() if ".layers." not in name}
    shapes = ends | {f"model.layers.{i}.{name}": shape for i in range(2) for name, shape in layer.items()}
    tensors = {name: content(name, shape) for name, shape in shapes.items()}
    save_huggingface(folder, config, tensors)
    return tensors


def both_ways(programs, tmp_path, *options):
    """Convert there and back; returns the digests of what comes back."""
    hf, mg, back = tmp_path / "hf", tmp_path / "mg", tmp_path / "back"
    run(programs / "mscvt", "hf2mg", "--load-dir", hf, "--save-dir", mg, *options)
    run(programs / "mscvt", "mg2hf", "--load-dir", mg, "--save-dir", back)
    return huggingface_digests(back)


def shard(tmp_path, rank):
    with torch.serialization.safe_globals([Namespace]):
        path = tmp_path / f"mg/iter_0000001/mp_rank_{rank}/model_optim_rng.pt"
        return torch.load(path, weights_only=True)["model"]


def test_plugin_with_a_layout_of_its_own_converts_both_ways(programs, tmp_path):
    plain = {name: shape for name, shape in DENSE_LAYER.items() if not re.search("[qkv]_proj", name)}
    tensors = dense_source(tmp_path / "hf", "layout", plain | {"self_attn.vkq.weight": (40, 24)})
    back = both_ways(programs, tmp_path, "--target-tensor-parallel-size", 2)
    assert back == {name: digest(tensor) for name, tensor in tensors.items()}
    v, k, q = tensors["model.layers.1.self_attn.vkq.weight"].split((8, 8, 24))
    mine = shard(tmp_path, "01")["decoder.layers.1.self_attention.linear_qkv.weight"]
    assert torch.equal(mine, torch.cat((q[12:], k[4:], v[4:])))


def test_plugin_that_places_its_layers_itself_converts_both_ways(programs, tmp_path):
    tensors = dense_source(tmp_path / "hf", "placement", DENSE_LAYER)
    back = both_ways(programs, tmp_path, "--target-pipeline-parallel-size", 2)
    assert back == {name: digest(tensor) for name, tensor in tensors.items()}
    first, second = (shard(tmp_path, rank)["decoder.layers.0.mlp.linear_fc2.weight"] for rank in ("00_000", "00_001"))
    assert torch.equal(first, tensors["model.layers.1.mlp.down_proj.weight"])
    assert torch.equal(second, tensors["model.layers.0.mlp.down_proj.weight"])


def test_tests_of_the_example_pass(programs, sources):
    assert " passed" in passed(programs / "python", sources / "olmoe/tests")
