"""Every recipe is planned at its model's true size, from headers in files with holes in place of weights.

`recipes.tsv` has the options of the original's public launch scripts: each of them is a recipe. A recipe is planned by
the words of its script in `examples/`, where it has one. The way back is planned at the true depth, from what a
checkpoint of the way there records; each rank has one expert there, to save time.
"""

import csv
import gc
import json
import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import pytest

from command_line import run_main
from example_scripts import FOLDER, recipes, scripts
from mscvt.cli.command_table import BY_NAME
from mscvt.cli.recipe_commands import words_of
from mscvt.cli.words import read_words
from mscvt.description.factors import FactorBook
from mscvt.dialects import mindspeed
from mscvt.dialects.mindspeed import make_args
from mscvt.formats.huggingface.writer import allocate
from mscvt.formats.peft.names import factor_names
from mscvt.jobs.models import model_from_config
from mscvt.jobs.plans import plan_to_adapter, plan_to_huggingface
from mscvt.jobs.recorded_models import model_from_args
from mscvt.jobs.request import Request
from mscvt.jobs.trained_factors import read_trained
from mscvt.model.lora import Lora
from mscvt.plan.by_huggingface import ByHuggingFace
from mscvt.tensors.info import TensorInfo
from mscvt.testing import Options, load_registry, source_shapes

ROWS = list(csv.DictReader(Path(__file__).with_name("recipes.tsv").open(encoding="utf-8"), delimiter="\t"))
REGISTRY, RECIPES, SCRIPTS = load_registry(), {recipe.name: recipe for recipe in recipes()}, dict(scripts())
LAYOUTS = {(json.dumps(r.options["hf2mg"]), json.dumps(r.config)): r.name for r in reversed(RECIPES.values())}
"""Layout and model -> the first recipe of them; recipes with LoRA have those of another one."""
ADAPTED = [name for name, recipe in RECIPES.items() if "lora-r" in recipe.options["mg2hf"]]
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
IRRELEVANT = {"load_dir", "save_dir", "load_model_type", "save_model_type", "hf_cfg_dir", "lora_load", "recipe"}
NOT_SAVED = {"ckpt_convert_glm45_air_mcore2hf.sh": {"mtp_num_layers"}}
"""Options of a way back that contradict the checkpoint which the way there makes."""


def values_of(command, words):
    given = read_words(BY_NAME[command], ["--load-dir", "a", "--save-dir", "b", *words])
    assert given.error is None, given.error
    return given


def asked(command, words):
    return {name: value for name, value in values_of(command, words).values.items() if name not in IRRELEVANT}


@cache
def asked_of_recipes(command):
    return [asked(command, ["--recipe", name]) for name in RECIPES]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["script"])
def test_script_of_the_original_is_a_recipe(row):
    way = {"hf2mg": ("hf", "mg"), "mg2hf": ("mg", "hf")}[row["direction"]]
    kinds = ["--load-model-type", way[0], "--save-model-type", way[1]]
    wanted = asked("convert", [*kinds, *shlex.split(row["options"])])
    needless = NOT_SAVED.get(row["script"], set()) | (wanted.keys() - BY_NAME[row["direction"]].rows.keys())
    wanted = {name: value for name, value in wanted.items() if name not in needless}
    assert wanted in asked_of_recipes(row["direction"])


@pytest.fixture(scope="module", autouse=True)
def without_collector():
    """Plans are millions of objects in no cycle; looking for cycles takes a fourth of the time."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Model by model, a folder with its configuration and a file of headers."""
    made = {}

    def make(recipe):
        key = (recipe.model_type, json.dumps(recipe.config))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("hf")
            config = configuration(recipe)
            (made[key] / "config.json").write_text(json.dumps(config), encoding="utf-8")
            shapes = source_shapes(REGISTRY.family(recipe.model_type), config)
            allocate(made[key] / "model.safetensors", {name: ("BF16", shape) for name, shape in shapes.items()})
        return made[key]

    return make


def configuration(recipe):
    said = REGISTRY.family(recipe.model_type).model_type.config_model_types[0]
    return {"model_type": said, **recipe.config}


@pytest.mark.parametrize("name", LAYOUTS.values())
def test_recipe_is_planned_at_the_true_size(name, sources, tmp_path):
    recipe = RECIPES[name]
    words = ["--load-dir", sources(recipe), "--save-dir", tmp_path / "mg", "--dry-run", "--quiet"]
    path = FOLDER / f"{name}-hf2mg.sh"
    outcome = run_main("hf2mg", *(words_in(path) if path in SCRIPTS else ["--recipe", name]), *words)
    assert outcome.code == 0, outcome.err
    assert "every byte is accounted for" in outcome.out


def words_in(path):
    """The options that a script gives after the folders."""
    command = path.read_text(encoding="utf-8").partition('"$save"')[2]
    return [word for word in shlex.split(command) if word not in {"$@", "\n"}]


@pytest.mark.parametrize("name", LAYOUTS.values())
def test_recipe_leads_back_from_what_its_checkpoint_records(name):
    recipe = RECIPES[name]
    options = values_of("hf2mg", ["--recipe", name]).asked(Options)
    config = configuration(recipe)
    ranks = options.target_expert_parallel_size or 1
    if options.moe_tp_extend_ep:
        ranks *= options.target_tensor_parallel_size
    config |= {key: ranks for key in EXPERTS if key in config}
    family = REGISTRY.family(recipe.model_type)
    saved = model_from_config(family, config, options, "config.json")
    args = make_args(family, saved.h, saved.options, saved.kept, ())
    back = values_of("mg2hf", ["--recipe", name]).asked(Options)
    read = model_from_args(Headers(args), None, Request(Path(), back), REGISTRY)
    shards = {key: TensorInfo("BF16", shape, 0, 0) for key, shape in ByHuggingFace(read.description).expected.items()}
    plan = plan_to_huggingface(read.description, shards)
    expected = {key for key in source_shapes(family, config) if key not in saved.description.left_out}
    assert {key for file in plan.files for key in file.tensors} == expected


def test_recipe_makes_the_layout_of_another_checkpoint_too():
    assert asked("mg2mg", ["--recipe", "glm4.5"]) == {
        "model_type_hf": "glm45",
        "target_tensor_parallel_size": 4,
        "target_pipeline_parallel_size": 4,
        "target_expert_parallel_size": 1,
        "moe_grouped_gemm": True,
    }


def test_examples_are_those_of_the_recipes():
    assert {path.name for path in FOLDER.glob("*.sh")} == {path.name for path in SCRIPTS}
    for path, text in SCRIPTS.items():
        assert path.read_text(encoding="utf-8") == text, "python tests/example_scripts.py writes them"
        assert os.access(path, os.X_OK)


@pytest.mark.parametrize("name", RECIPES)
def test_example_says_what_its_recipe_says(name):
    for command in ("hf2mg", "mg2hf"):
        path = FOLDER / f"{name}-{command}.sh"
        if path in SCRIPTS:
            assert asked(command, words_in(path)) == asked(command, ["--recipe", name])
        assert asked(command, words_of(RECIPES[name], command)) == asked(command, ["--recipe", name])


def test_examples_run_in_a_shell_both_ways(tmp_path):
    family, sizes = REGISTRY.family("plm"), {"num_hidden_layers": 2, "hidden_size": 32, "vocab_size": 64}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 48}
    sizes |= {"kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 2, "v_head_dim": 4}
    config = {**configuration(RECIPES["plm-1.8b"]), **sizes}
    hf = tmp_path / "hf"
    hf.mkdir()
    (hf / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shapes = source_shapes(family, config)
    allocate(hf / "model.safetensors", {name: ("BF16", shape) for name, shape in shapes.items()})
    program = tmp_path / "bin" / "mscvt"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mscvt "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    for way, load, save, more in (("hf2mg", hf, "mg", []), ("mg2hf", tmp_path / "mg", "back", ["--hf-cfg-dir", hf])):
        command = [FOLDER / f"plm-1.8b-{way}.sh", load, tmp_path / save, "--quiet", *more]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "back" / "config.json").is_file()


@pytest.mark.parametrize("name", ADAPTED)
def test_recipe_with_lora_is_planned_from_what_a_training_run_saves(name, monkeypatch):
    recipe = RECIPES[name]
    beside = ["--lora-load", "factors"] if name.endswith("merged") else []
    lora = values_of("mg2hf", ["--recipe", name, *beside]).asked(Lora)
    family, config = REGISTRY.family(recipe.model_type), configuration(recipe)
    options = values_of("hf2mg", ["--recipe", name]).asked(Options)
    saved = model_from_config(family, config, options, "config.json")
    args = {**make_args(family, saved.h, saved.options, saved.kept, ()), "lora_alpha": lora.lora_alpha}
    args |= {"lora_r": lora.lora_r, "lora_target_modules": [*lora.lora_target_modules]}
    read = model_from_args(Headers(args), None, Request(Path(), Options()), REGISTRY)
    book = FactorBook(mindspeed.lora.factor_keys, factor_names)
    targets = [
        w for w in read.description.parameters if mindspeed.lora.target_module(w.key) in lora.lora_target_modules
    ]
    ranks = {w: lora.lora_r for w in targets if book.units(w.layout) and mindspeed.lora.factor_keys(w.key)}
    described = book.describe(read.description, book.as_trained(read.description, ranks))
    factors = {n: TensorInfo("BF16", s, 0, 0) for n, s in ByHuggingFace(described).expected.items()}
    weights = {n: TensorInfo("BF16", s, 0, 0) for n, s in ByHuggingFace(read.description).expected.items()}
    base, trained = (Headers(args, tensors, Path(name)) for name, tensors in (("a", weights), ("b", factors)))
    if lora.lora_load is None:
        base = Headers(args, weights | factors, Path("a"))
    monkeypatch.setattr("mscvt.jobs.trained_factors.open_factors", lambda folder, model: trained)
    found = read_trained(Request(Path(), Options(), lora=lora), read, base)
    merged = plan_to_huggingface(read.description, found.merged().tensors)
    names = {name for file in merged.files for name in file.tensors}
    assert names == {name for name in source_shapes(family, config) if name not in saved.description.left_out}
    adapter = plan_to_adapter(described, found.factors().tensors)
    assert len(adapter.files[0].tensors) == 2 * 7 * config["num_hidden_layers"]


class Headers:
    """A checkpoint that has headers alone."""

    ckpt_format, ranks = "torch", ()
    some_shapes: ClassVar = {}

    def __init__(self, args, tensors=MappingProxyType({}), folder=Path("a")):
        self.args, self.tensors, self.folder, self.files = args, tensors, folder, []
