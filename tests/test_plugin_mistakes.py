"""Ordinary mistakes in a plugin: each is an error that names the plugin, the hook and what to write instead."""

import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from mscvt import MscvtError
from mscvt.dialects.registry import load_registry
from mscvt.jobs.models import model_from_config
from mscvt.testing import FamilyContract, Options
from small_configurations import LLAMA, MIXTURE

HEAD = """
from mscvt import *
MSCVT_API = 2
BLOCKS = {**DECODER, "moe": EXPERTS}
FIELDS = {"num_experts": count("num_experts"), "moe_intermediate_size": count("moe_intermediate_size")}

@hookimpl
def mscvt_model_types():
    return [ModelType("abacus", config_model_types=("abacus",), fields=FIELDS)]

@hookimpl
def mscvt_names(block):
    return BLOCKS.get(block)
"""
LAYERS = """
@hookimpl
def mscvt_layers(hyperparameters):
    return [Layer(i, MOE) for i in range(hyperparameters["num_layers"])]
"""
RULES = """
@hookimpl
def mscvt_split_rules():
    return [{}]
"""
NORM = 'whole("{}", "norm.input", "hidden")'


MISTAKES = {
    'refused={"dialects": "no"}': "speaks of dialects, expected names of options, such as dialect",
    'refused={"dialect": None}': "is {'dialect': None}, expected option -> what to say",
    'noted={"target_tensor_paralel_size": "no"}': "speaks of target_tensor_paralel_size, expected names of options, "
    "such as target_tensor_parallel_size",
    'noted="moe_grouped_gemm"': "is 'moe_grouped_gemm', expected option -> what to say",
    'flags={"megatrn": ["--swap"]}': "speaks of megatrn, expected names of dialects, such as megatron",
    'dialects=("megatrn",)': "speaks of megatrn, expected names of dialects, such as megatron",
    'dialects="megatron"': "is 'megatron', expected a tuple of strings: ('megatron',)",
    'args={"num_layers": 7}': "give num_layers, which is a field: what config.json says of it is recorded",
}
"""What a model type is given -> what is said of it."""


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """The registry with one plugin, whose module has this text."""
    monkeypatch.syspath_prepend(tmp_path)

    def load(text, name="abacus"):
        (tmp_path / f"mscvt_{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, f"mscvt_{name}", raising=False)
        return load_registry([EntryPoint(name, f"mscvt_{name}", "mscvt")])

    return load


def described(registry, config=MIXTURE):
    return model_from_config(registry.family("abacus"), config, Options(), "config.json").description


def test_plugin_without_a_mistake_is_described(registry):
    assert len(described(registry(HEAD + LAYERS)).parameters) > 10


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD.replace('("abacus",)', '("abacus")'), "config_model_types of 'abacus' is 'abacus', expected a tuple"),
        (HEAD.replace('count("num_experts")', '"num_experts"'), "expected count('num_experts')"),
        (HEAD.replace("mscvt_names", "mscvt_name"), "unknown hooks: mscvt_name;"),
        (HEAD.replace("(block)", "(blok)"), "wrong signature"),
        *(
            (HEAD.replace("fields=FIELDS", f"fields=FIELDS, {given}"), f"{given.partition('=')[0]} of 'abacus' {says}")
            for given, says in MISTAKES.items()
        ),
        (HEAD.replace('ModelType("abacus"', 'ModelType("abacus 2"'), "named 'abacus 2', expected a word"),
    ],
)
def test_mistake_is_found_when_the_plugin_is_loaded(text, says, registry):
    (plugin,) = registry(text).plugins
    assert says in plugin.error
    assert plugin.model_types == ()


@pytest.mark.parametrize(
    ("text", "hook", "says"),
    [
        (HEAD + LAYERS + RULES.format(NORM.format("decoder.layers.{layer}.norm.weight")), "split_rules", "prefix"),
        (HEAD + LAYERS + RULES.format(NORM.format("norm.{exp}.weight")), "split_rules", "holds exp"),
        (HEAD + LAYERS + RULES.format(NORM.format("norm.{weight")), "split_rules", "stray brace"),
        (
            HEAD.replace('"moe": EXPERTS', '"moe": {k: v.replace("expert}", "exp}") for k, v in EXPERTS.items()}')
            + LAYERS,
            "names",
            "holds exp, which is no axis",
        ),
        (
            HEAD.replace("{**DECODER", '{"mlp": MLP, "model": ENDS') + LAYERS,
            "layers",
            "no block 'attention', and layer 0",
        ),
        (HEAD.replace("{**DECODER", '{"attention": ATTENTION, "mlp": MLP'), "mscvt_names", "the role embedding"),
        (
            HEAD.replace("{**DECODER", '{"attention": ATTENTION | NORMS, "model": ENDS')
            + LAYERS.replace("MOE", "DENSE"),
            "mscvt_layers",
            "no block 'mlp'",
        ),
        (
            HEAD.replace("EXPERTS", '{k: v.replace("layers.{layer}", "layers.1") for k, v in EXPERTS.items()}')
            + LAYERS,
            "names",
            "which needs {layer}",
        ),
        (
            HEAD.replace(', "moe_intermediate_size": count("moe_intermediate_size")', "") + LAYERS,
            "fields",
            "moe_intermediate_size",
        ),
        (HEAD.replace('"num_experts": count("num_experts"), ', "") + LAYERS, "fields", "num_experts"),
    ],
)
def test_mistake_is_found_when_a_model_is_described(text, hook, says, registry):
    with pytest.raises(MscvtError) as caught:
        described(registry(text))
    said = "\n".join([str(caught.value), caught.value.hint or ""])
    assert hook in said
    assert says in said


def test_block_that_is_not_there_is_named_before_an_option_for_it_is_refused(registry):
    text = HEAD.replace('"moe": EXPERTS', '"moes": EXPERTS') + LAYERS
    with pytest.raises(MscvtError, match="it has no block 'moe', and layer 0 consists of attention"):
        model_from_config(
            registry(text).family("abacus"), MIXTURE, Options(target_expert_parallel_size=2), "config.json"
        )


@pytest.mark.parametrize("ask", [lambda r: r.recognise({"model_type": "abacus"}), lambda r: r.family("abacus")])
def test_broken_plugin_that_was_meant_is_named_first(ask, registry):
    with pytest.raises(MscvtError) as caught:
        ask(registry("import a_library_that_nobody_has\n"))
    assert caught.value.message.startswith("plugin (unknown) ? can't be used")
    assert "a_library_that_nobody_has" in caught.value.message


def test_broken_plugin_of_another_family_does_not_stand_in_the_first_line(registry):
    with pytest.raises(MscvtError, match="no installed plugin claims") as caught:
        registry("import a_library_that_nobody_has\n").recognise({"model_type": "sextant"})
    assert "a_library_that_nobody_has" in "".join(caught.value.faults)
    assert caught.value.hint == "Plugins that are installed can't be used: is the one for this model among them?"


GATE = 'Rule("mlp.linear_fc1.weight", "(half ffn) hidden", (Source("mlp.gate", "(half[0] ffn) hidden"), ' + (
    'Source("mlp.up", "(half[1] ffn) hidden")){cuts})'
)


@pytest.mark.parametrize(
    ("cuts", "listed", "is_refused"),
    [("", (), True), (', {"ffn": TENSOR}', (), False), ("", ("mlp.linear_fc1.weight",), False)],
    ids=["forgotten", "cut", "listed"],
)
def test_forgotten_cut_of_a_matrix_fails_the_contract(cuts, listed, is_refused, registry):
    class Contract(FamilyContract):
        model_type = "abacus"
        config: Mapping[str, Any] = LLAMA
        whole = listed

    text = HEAD.replace("FIELDS = {", "FIELDS = {} and {") + RULES.format(GATE.replace("{cuts}", cuts))
    family = registry(text).family("abacus")
    if is_refused:
        with pytest.raises(AssertionError, match=r"mlp.linear_fc1.weight \[28, 20\]"):
            Contract().test_matrices_of_own_rules_are_cut(family)
    else:
        Contract().test_matrices_of_own_rules_are_cut(family)
