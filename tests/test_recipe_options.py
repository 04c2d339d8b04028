"""Options from recipes and files: what wins, what is refused, what `mscvt recipes` shows."""

import json
from dataclasses import replace

import pytest

from command_line import make_source, run_main
from json_keys import check_object
from mscvt.cli.command_table import BY_NAME
from mscvt.cli.words import read_words
from mscvt.errors import MscvtError
from mscvt.plugins.recipes import RecipeFile, find_recipes, load_recipe, read_recipe
from mscvt.plugins.registry import load_registry

FOLDERS = ["--load-dir", "a", "--save-dir", "b"]
MINE = """\
workers = 2
[hf2mg]
load-dir = "a"
save_dir = "b"
tp = 4
noop-layers = [94, 95]
verify = false
[mg2hf]
dtype = "fp16"
"""


def read(command, *words):
    given = read_words(BY_NAME[command], list(map(str, words)))
    assert given.error is None, given.error
    return given.values


def fault(command, *words):
    error = read_words(BY_NAME[command], list(map(str, words))).error
    assert error is not None
    return f"{error} {error.hint}"


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINE, encoding="utf-8")
    return path


def test_options_of_the_command_line_win_over_the_file_and_the_file_over_the_recipe(mine):
    values = read("hf2mg", "--recipe", "qwen3-235b", "--config", mine, "--pp", 2)
    assert values["target_pipeline_parallel_size"] == 2
    assert values["target_tensor_parallel_size"] == 4
    assert values["target_expert_parallel_size"] == 32
    assert values["moe_grouped_gemm"] is True
    assert (str(values["load_dir"]), str(values["save_dir"]), values["workers"]) == ("a", "b", 2)
    assert "verify" not in values


def test_table_of_another_command_is_not_read(mine):
    assert read("mg2hf", *FOLDERS, "--config", mine)["dtype"] == "fp16"
    assert "dtype" not in read("mg2mg", *FOLDERS, "--config", mine)


def test_option_that_is_taken_away_is_not_taken_from_a_recipe():
    assert "noop_layers" not in read("mg2mg", *FOLDERS, "--recipe", "qwen3-235b", "--noop-layers", "none")
    assert read("mg2mg", *FOLDERS, "--recipe", "qwen3-235b")["noop_layers"] == (94, 95)


def test_plan_takes_the_recipe_of_its_direction():
    values = read("plan", "hf2mg", "--load-dir", "a", "--recipe", "ring-1t")
    assert values["moe_tp_extend_ep"] is True


WRONG = {
    "no TOML": ("tp = = 2", "can't be read as TOML"),
    "an option of no command": ("target-tensor-paralel-size = 2", "Did you mean target-tensor-parallel-size?"),
    "an option of another command": ("[hf2mg]\nhf-cfg-dir = 'x'", "hf-cfg-dir: is no option of hf2mg"),
    "a word for a number": ("tp = 'two'", "tp two: expected a whole number"),
    "a table for a number": ("[tp]\na = 1", "tp: expected a whole number, such as tp = 2"),
    "a number for a table": ("hf2mg = 3", "hf2mg: expected a table"),
    "an impossible value": ("tp = 0", "--target-tensor-parallel-size 0: must be at least 1"),
    "a value for a switch": ("verify = 'yes'", "takes no value"),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_file_that_is_wrong_is_refused_with_what_to_write(text, said, mine):
    mine.write_text(text, encoding="utf-8")
    assert said in fault("hf2mg", *FOLDERS, "--config", mine)


def test_file_that_is_not_there_or_far_too_long_is_refused(tmp_path):
    assert "no such file" in fault("hf2mg", *FOLDERS, "--config", tmp_path / "mine.toml")
    (tmp_path / "long.toml").write_bytes(b"#" * (1 << 21))
    assert "is longer than" in fault("hf2mg", *FOLDERS, "--config", tmp_path / "long.toml")


def test_recipe_that_is_nearly_there_is_suggested():
    assert "Did you mean qwen3-235b?" in fault("hf2mg", *FOLDERS, "--recipe", "qwen3-236b")


def test_recipe_for_a_model_of_another_size_is_refused(tmp_path):
    hf = make_source("qwen3-moe", tmp_path / "hf")
    outcome = run_main("hf2mg", "--load-dir", hf, "--save-dir", tmp_path / "mg", "--recipe", "qwen3-235b")
    assert outcome.code == 1
    assert "config.json is not of Qwen3-235B-A22B" in outcome.err
    assert "num_hidden_layers is 4, in the recipe 94" in outcome.err


def test_recipes_are_listed_and_shown():
    listed = run_main("recipes")
    assert listed.code == 0
    assert "qwen3-235b  " in listed.out
    assert "pp 4 ep 32 vpp 8" in listed.out
    shown = run_main("recipes", "qwen3-235b").out
    assert "mscvt hf2mg --load-dir DIR --save-dir DIR \\\n    --model-type-hf qwen3-moe \\\n" in shown
    assert "    --noop-layers 94,95 \\\n" in shown


def test_json_has_the_recipes():
    shown = json.loads(run_main("recipes", "qwen3-235b", "--json").out)
    check_object("recipes", shown)
    (recipe,) = shown["recipes"]
    assert recipe["options"]["mg2hf"] == [
        *("--model-type-hf", "qwen3-moe", "--noop-layers", "94,95", "--moe-grouped-gemm")
    ]
    assert recipe["config"]["num_experts"] == 128


BROKEN = {
    "no TOML": (b"model", "can't be read as TOML"),
    "not UTF-8": (b"\xff", "can't be read as TOML"),
    "a key of no meaning": (b"model = 'a'\nmodel-type = 'b'\n[layout]", "layout: recipes have no such key"),
    "no model type": (b"model = 'a'", "model-type is missing"),
    "a number for a table": (b"model = 'a'\nmodel-type = 'b'\nhf2mg = 3", "hf2mg: expected a table"),
}


@pytest.mark.parametrize(("data", "said"), BROKEN.values(), ids=BROKEN)
def test_recipe_that_is_wrong_names_its_plugin_and_file(data, said, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(data)
    with pytest.raises(MscvtError) as raised:
        read_recipe(RecipeFile("mine", "mscvt-mine", path))
    assert "mscvt-mine: recipes/mine.toml" in str(raised.value)
    assert said in str(raised.value)


def test_recipe_that_two_plugins_have_is_not_guessed(monkeypatch):
    registry = load_registry()
    found = find_recipes(registry)
    twice = (*found["plm-1.8b"], replace(found["plm-1.8b"][0], distribution="mscvt-mine"))
    monkeypatch.setattr("mscvt.plugins.recipes.find_recipes", lambda _: {"plm-1.8b": twice})
    with pytest.raises(MscvtError, match=r"more than one plugin has a recipe 'plm-1.8b': mscvt-plm, mscvt-mine"):
        load_recipe("plm-1.8b", registry)
