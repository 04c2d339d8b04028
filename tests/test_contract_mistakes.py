"""Mistakes of a plugin that change no shape: the contract that its tests inherit finds each, and says what to list."""

import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

import support_table
from mscvt.dialects.registry import load_registry
from mscvt.model.options import rows
from mscvt.testing import FamilyContract, Options
from mscvt.testing.contract.real_class import as_computed
from mscvt.testing.sources import sizes_of
from small_configurations import LLAMA

PLUGIN = """
from mscvt import *
MSCVT_API = 2
FIELDS = {{{fields}}}

@hookimpl
def mscvt_model_types():
    return [ModelType("abacus", ("llama",), FIELDS, names={names})]

@hookimpl
def mscvt_split_rules():
    return [{rules}]
"""
SUITES = {s.model_type: s for s in sorted(support_table.suites(), key=lambda suite: len(suite.variants()))}


@pytest.fixture
def family(tmp_path, monkeypatch):
    """A family that is a plain decoder but for what is given."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mscvt_abacus", raising=False)

    def made(fields="", names="DECODER", rules=""):
        (tmp_path / "mscvt_abacus.py").write_text(PLUGIN.format(fields=fields, names=names, rules=rules))
        return load_registry([EntryPoint("abacus", "mscvt_abacus", "mscvt")]).family("abacus")

    return made


class Contract(FamilyContract):
    model_type = "abacus"
    config: Mapping[str, Any] = {**LLAMA, "hidden_size": 24}
    real = LlamaConfig, LlamaForCausalLM


QKV = """Rule("self_attention.linear_qkv.weight", "(group slot channel) hidden", (
    Source("attention.q", "(group slot[:queries] channel) hidden"),
    Source("attention.k", "(group slot[{}] channel) hidden"),
    Source("attention.v", "(group slot[{}] channel) hidden"),
), {{"group": TENSOR}})"""
PROJ = 'whole("self_attention.linear_proj.weight", "attention.proj", {})'
DOWN = 'whole("mlp.linear_fc2.weight", "mlp.down", {})'
NORM = 'whole("{}.weight", "norm.input", "hidden")'
WRONG = {
    "swapped slots": (QKV.format("queries + 1", "queries"), "elements in other places"),
    "transposed": (
        DOWN.format('"ffn hidden", cuts={"ffn": TENSOR}'),
        "a source of the shape [14, 24], the core's is [24, 14]",
    ),
    "another cut": (PROJ.format('"hidden (head channel)", cuts={"hidden": TENSOR}'), "cut by {'hidden': 'tensor'}"),
    "another order": (
        'whole("self_attention.linear_proj.weight", "attention.proj", "(head channel) hidden", cuts={"head": TENSOR})',
        "axes in another order",
    ),
    "no cut": (PROJ.format('"hidden (head channel)"'), "cut by nothing, the core's by {'head': 'tensor'}"),
    "another key": (NORM.format("input_layer_norm"), "the core's is 'input_layernorm.weight'"),
    "dtype kept": (NORM.format("input_layernorm")[:-1] + ", keeps_dtype=True)", "norm.input: keeps_dtype=True"),
    "key of an end": ('whole("decoder.final_norm.weight", "norm.final", "hidden")', "decoder.final_layernorm.weight"),
}
RIGHT = {
    "the core's": QKV.format("queries", "queries + 1"),
    "other words": 'whole("mlp.linear_fc2.weight", "mlp.down", "1 hidden ffn", cuts={"ffn": TENSOR})',
    "own role": 'whole("mlp.linear_fc3.weight", "mlp.third", "ffn hidden", cuts={"ffn": TENSOR})',
    "more elements": 'whole("input_layernorm.weight", "norm.input", "half hidden")',
}


@pytest.mark.parametrize(("rule", "says"), WRONG.values(), ids=WRONG)
def test_own_rule_that_does_something_else_than_the_cores_fails_unless_it_is_listed(rule, says, family):
    made = family(rules=rule)
    with pytest.raises(AssertionError, match="differs from the core, and `differs` lists not: ") as caught:
        Contract().test_own_rules_do_what_the_core_does_with_the_same_roles(made)
    assert says in str(caught.value)
    key = str(caught.value).partition("lists not: ")[2].partition(" (")[0]

    class Listed(Contract):
        differs = (key,)

    Listed().test_own_rules_do_what_the_core_does_with_the_same_roles(made)


@pytest.mark.parametrize("rule", RIGHT.values(), ids=RIGHT)
def test_own_rule_that_does_the_same_or_takes_other_sizes_passes(rule, family):
    third = '"mlp": MLP | {"mlp.third": "model.layers.{layer}.mlp.third.weight"}'
    names = "{**DECODER, " + third + "}" if "third" in rule else "DECODER"
    Contract().test_own_rules_do_what_the_core_does_with_the_same_roles(family(names=names, rules=rule))


@pytest.mark.parametrize("path", ["atention_bias", "rope_parameters.tetha"])
def test_misspelt_optional_field_is_found_in_what_the_real_class_saves(path, family, tmp_path):
    fields = f'"wanted": flag("{path}", default=None), "add_qkv_bias": flag("attention_bias", default=False)'
    made = family(fields=fields)
    registry = load_registry([EntryPoint("abacus", "mscvt_abacus", "mscvt")])
    with pytest.raises(AssertionError, match=rf"not in `not_saved`: {{'wanted': \('{path}',\)}}"):
        Contract().test_names_and_shapes_are_those_of_the_real_class(registry, made, tmp_path / "first")

    class Listed(Contract):
        not_saved = ("wanted",)

    Listed().test_names_and_shapes_are_those_of_the_real_class(registry, made, tmp_path / "second")


def test_logits_are_computed_with_the_familys_own_fields_and_spelling(family):
    fields = '"norm_epsilon": number("norm_epsilon"), "moe_router_topk": count("moe_k", default=6)'
    made = family(fields=fields)
    config = {**{name: value for name, value in LLAMA.items() if name != "rms_norm_eps"}, "norm_epsilon": 0.25}
    found = as_computed(made, {**config, "moe_k": 3}, sizes_of(made, {**config, "moe_k": 3}))
    assert (found["rms_norm_eps"], found["num_experts_per_tok"], found["moe_k"]) == (0.25, 3, 3)
    assert "num_experts_per_tok" not in as_computed(made, config, sizes_of(made, config)), "no default of a field"


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("llama2", {"tp2_pp2", "distributed"}),
        ("qwen3-moe", {"tp2_pp2", "tp2_ep2_grouped", "distributed"}),
        ("deepseek3", {"tp2_pp2", "tp2_ep2_grouped", "mtp2", "distributed"}),
        ("mamba2", {"tp2_pp2"}),
        ("gemma2", set()),  # its model type refuses the dialect
        ("deepseek2-lite", {"0.18"}),  # megatron-core does since 0.19
    ],
)
def test_contract_converts_under_every_dialect_that_can_have_the_model(model_type, expected):
    found = {
        name.removeprefix("megatron_"): options
        for name, options in SUITES[model_type].variants().items()
        if options.dialect == "megatron"
    }
    assert found.keys() == expected
    assert {options.dialect for options in found.values()} <= set(rows(Options)["dialect"].choices)


def test_contract_passes_over_a_dialect_that_own_rules_are_not_for(family, monkeypatch):
    made = family(rules='whole("input_layernorm.weight", "norm.input", "hidden")')
    registry = load_registry([EntryPoint("abacus", "mscvt_abacus", "mscvt")])
    monkeypatch.setattr("mscvt.testing.contract.base._registry", lambda: registry)
    assert made.model_type.dialects == ()
    assert [name for name in Contract.variants() if name.startswith("megatron")] == []
