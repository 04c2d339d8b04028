"""Every hook is documented, implemented by somebody and exercised by a test."""

import ast
import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from mscvt import DECODER, ModelType, hookimpl
from mscvt.dialects.options import Options
from mscvt.jobs.models import model_from_config
from mscvt.plugins import defaults, hookspecs
from mscvt.plugins.registry import load_registry

ROOT = Path(__file__).parents[2]
HOOKS = {name: getattr(hookspecs, name) for name in dir(hookspecs) if name.startswith("mscvt_")}
EXERCISED = {
    "mscvt_model_types": (
        "core/tests/test_plugin_clashes.py",
        "test_model_type_claimed_twice_is_refused_and_all_claimants_named",
    ),
    "mscvt_names": ("core/tests/test_family.py", "test_names_of_blocks_are_merged_and_the_same_name_may_stand_in_two"),
    "mscvt_layers": (
        "plugins/glm/tests/test_glm.py",
        "test_indexers_stand_where_transformers_has_them",
    ),
    "mscvt_split_rules": (
        "tests/test_third_party_plugin.py",
        "test_example_converts_both_ways_through_the_command_line",
    ),
    "mscvt_placement": ("core/tests/test_hookspecs.py", "test_placement_of_a_family_is_used"),
}
"""Hook -> the test that fails where the hook's answer is not used."""


@pytest.mark.parametrize("hook", HOOKS)
def test_hook_is_documented_by_what_to_do_and_what_none_means(hook):
    documentation = HOOKS[hook].__doc__
    first = documentation.splitlines()[0]
    assert re.fullmatch(r"(Return|Name|Enumerate|Place) .+[.:].*", first), "an imperative sentence comes first"
    assert "Called " in documentation, "it says when it is called"
    assert re.search(r"None\s+(means|or an empty list is an error)", documentation)


@pytest.mark.parametrize("hook", HOOKS)
def test_hook_is_implemented_by_a_plugin_or_answered_by_the_core(hook):
    families = load_registry().families.values()
    plugins = [sys.modules[family.plugin.entry_point.split(" = ")[1]] for family in families]
    assert plugins
    named = hook == "mscvt_names" and any(family.model_type.names for family in families)
    assert named or any(hasattr(module, hook) for module in (defaults, *plugins))


def test_every_hook_is_exercised_by_a_test():
    assert EXERCISED.keys() == HOOKS.keys()
    for hook, (path, name) in EXERCISED.items():
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in functions, f"{hook}: {path} has no {name}"


CONFIG = {
    "model_type": "acme",
    "num_hidden_layers": 6,
    "hidden_size": 8,
    "intermediate_size": 10,
    "num_attention_heads": 2,
    "vocab_size": 6,
}


@pytest.fixture
def plugin(monkeypatch):
    """A plugin that says no more than it must."""
    module = ModuleType("acme_plugin")
    module.MSCVT_API = 2

    @hookimpl
    def mscvt_model_types():
        return [ModelType("acme", ("acme",))]

    @hookimpl
    def mscvt_names(block):
        return DECODER.get(block)

    module.mscvt_model_types, module.mscvt_names = mscvt_model_types, mscvt_names
    monkeypatch.setitem(sys.modules, "acme_plugin", module)
    return module


def layers_by_stage():
    """Stage and key of each layer's input norm, in the order of the source's layers, on two stages."""
    family = load_registry([EntryPoint("acme", "acme_plugin", "mscvt")]).family("acme")
    options = Options(target_pipeline_parallel_size=2)
    parameters = model_from_config(family, CONFIG, options, "config.json").description.parameters
    places = {p.names[0]: (p.stage, p.key) for p in parameters if p.key.endswith("input_layernorm.weight")}
    return [places[f"model.layers.{layer}.input_layernorm.weight"] for layer in range(6)]


def norm(stage, number):
    return stage, f"decoder.layers.{number}.input_layernorm.weight"


def test_placement_of_the_core_holds_where_a_family_has_none(plugin):
    assert layers_by_stage() == [norm(0, 0), norm(0, 1), norm(0, 2), norm(1, 0), norm(1, 1), norm(1, 2)]


def test_placement_of_a_family_is_used(plugin):
    @hookimpl
    def mscvt_placement(topology, layers):
        """Deal the layers out to the stages in turn."""
        return [(topology.chunks[n % 2].stage, topology.chunks[n % 2].name, n // 2) for n in range(len(layers))]

    plugin.mscvt_placement = mscvt_placement
    assert layers_by_stage() == [norm(0, 0), norm(1, 0), norm(0, 1), norm(1, 1), norm(0, 2), norm(1, 2)]
