"""Model types with wrong fields, and what a description finds wrong: errors that name the plugin."""

from dataclasses import replace

import pytest
from small_plugins import ACME, CONFIG, H, family_of, raises, registry_of

from mscvt import DECODER, MscvtError, whole
from mscvt.dialects.mindspeed.options import Options
from mscvt.jobs.models import model_from_config

L = "model.layers.{layer}."


def describe(family, **options):
    return model_from_config(family, CONFIG, Options(**options), "config.json").description


def with_attention(**names):
    """The plain names, where the block `attention` has these too."""
    return {**DECODER, "attention": {**DECODER["attention"], **{r.replace("_", "."): n for r, n in names.items()}}}


SIZES = {
    "list": lambda h: [("slot", 3)],
    "text": lambda h: {"slot": "3"},
    "float": lambda h: {"slot": 3.0},
    "below zero": lambda h: {"slot": -3},
    "true": lambda h: {"slot": True},
    "number as name": lambda h: {3: 3},
    "None": lambda h: None,
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_sizes_that_are_no_whole_numbers_name_the_plugin(sizes):
    with raises("sizes", "it returned"):
        family_of(model_type=replace(ACME, sizes=sizes)).sizes(H)


@pytest.mark.parametrize("what", ["sizes", "args", "matches"])
def test_function_of_a_model_type_that_fails_names_the_plugin(what):
    registry = registry_of(model_type=replace(ACME, **{what: lambda _: 1 / 0}))
    with raises(what, "failed: ZeroDivisionError: division by zero"):
        if what == "matches":
            registry.recognise({"model_type": "acme"})
        else:
            getattr(registry.family("acme"), what)(H)


@pytest.mark.parametrize("answer", [None, [1], {"a": object()}, {"a": {1, 2}}, {1: 2}, {"a": [{"b": b""}]}], ids=repr)
def test_args_that_are_not_plain_name_the_plugin(answer):
    with raises("args", "it gives "):
        family_of(model_type=replace(ACME, args=lambda h: answer)).args(H)


def test_args_that_are_plain_are_given_as_they_are():
    plain = {"a": 1, "b": [1.5, None, (True, "x")], "c": {"d": {}}}
    assert family_of(model_type=replace(ACME, args=plain)).args(H) == plain
    assert family_of(model_type=replace(ACME, args=lambda h: {"n": h["num_layers"]})).args(H) == {"n": 4}


AT_LOAD = {
    "name": (replace(ACME, name=3), "a model type is named 3, expected a word"),
    "no name": (replace(ACME, name=""), "a model type is named '', expected a word"),
    "config_model_types": (
        replace(ACME, config_model_types="acme"),
        "config_model_types of 'acme' is 'acme', expected a tuple of strings: ('acme',)",
    ),
    "config_model_types of numbers": (replace(ACME, config_model_types=(1,)), "config_model_types of 'acme' is (1,)"),
    "ignored": (replace(ACME, ignored="*.x"), "ignored of 'acme' is '*.x', expected a tuple of strings: ('*.x',)"),
    "fields": (
        replace(ACME, fields={"num_experts": "n_experts"}),
        "field 'num_experts' of 'acme' is 'n_experts', expected count('n_experts') or the like",
    ),
    "matches": (replace(ACME, matches=True), "matches of 'acme' is True, expected a function"),
    "sizes": (replace(ACME, sizes={"slot": 3}), "sizes of 'acme' is {'slot': 3}, expected a function"),
    "args": (replace(ACME, args={"a": object}), "args of 'acme' are not all plain values (numbers, text, lists)"),
}


@pytest.mark.parametrize(("model_type", "what"), AT_LOAD.values(), ids=AT_LOAD)
def test_model_type_with_a_wrong_field_is_found_when_the_plugin_is_loaded(model_type, what):
    registry = registry_of(model_type=model_type)
    (plugin,) = registry.plugins
    assert registry.families == {}
    assert (plugin.distribution, plugin.version) == ("mscvt-acme", "1.2")
    assert plugin.error.startswith(what)


DESCRIBED = {
    "role that nobody knows": (
        {"names": with_attention(attention_sink=L + "sink")},
        "no rule for the role attention.sink of attention + mlp layers",
    ),
    "role of the ends that nobody knows": (
        {"names": {**DECODER, "model": {**DECODER["model"], "end": "end.weight"}}},
        "no rule for the role end of the model's ends",
    ),
    "no ends": (
        {"names": {**DECODER, "model": None}},
        "plugin mscvt-acme 1.2, mscvt_names: it names no embedding in the block 'model'",
    ),
    "name with an unknown field": (
        {"names": with_attention() | {"mlp": {**DECODER["mlp"], "mlp.up": L + "{expert}.up"}}},
        "plugin mscvt-acme 1.2, mscvt_names: the name 'model.layers.{layer}.{expert}.up' of mlp.up holds expert, "
        "which is no axis of it",
    ),
    "size that the model lacks": (
        {
            "names": with_attention(own=L + "own"),
            "mscvt_split_rules": [whole("own.weight", "own", "slots hidden")],
        },
        "plugin mscvt-acme 1.2, rule 'own.weight' needs the size 'slots'",
    ),
}


@pytest.mark.parametrize(("what", "message"), DESCRIBED.values(), ids=DESCRIBED)
def test_what_the_description_finds_wrong_names_the_plugin(what, message):
    with pytest.raises(MscvtError) as caught:
        describe(family_of(**what))
    assert message in str(caught.value)
    assert "mscvt-acme" in f"{caught.value} {caught.value.hint}"
    assert caught.value.hint


def test_plain_plugin_needs_nothing_but_names():
    described = describe(family_of())
    assert len({parameter.key for parameter in described.parameters}) == 2 + 1 + 4 * 6
