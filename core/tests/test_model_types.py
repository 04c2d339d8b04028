"""Model types with wrong fields, and what a description finds wrong: errors that name the plugin."""

from dataclasses import replace

import pytest
from small_plugins import ACME, CONFIG, H, family_of, raises, registry_of

from mscvt import DECODER, DENSE, Layer, MscvtError, Own, count, counts, flag, whole
from mscvt.dialects.mindspeed import training_flags
from mscvt.dialects.options import Options
from mscvt.jobs.models import model_from_config

LAYERS = [Layer(0, DENSE), Layer(1, DENSE)]
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


FUNCTIONS = {
    "sizes": lambda registry: registry.family("acme").sizes(H),
    "args": lambda registry: registry.family("acme").args(H, LAYERS),
    "flags": lambda registry: registry.family("acme").flags(H, LAYERS, H, "mindspeed"),
    "left_out": lambda registry: registry.family("acme").left_out(H),
    "respell": lambda registry: registry.family("acme").respelled(CONFIG),
    "matches": lambda registry: registry.recognise(CONFIG),
}


@pytest.mark.parametrize("what", FUNCTIONS)
def test_function_of_a_model_type_that_fails_names_the_plugin(what):
    registry = registry_of(model_type=replace(ACME, **{what: lambda *_: 1 / 0}))
    with raises(what, "failed: ZeroDivisionError: division by zero"):
        FUNCTIONS[what](registry)


ANSWERS = {
    "flags are text": ("flags", "--swap", "it returned '--swap', expected a list of words"),
    "flags are numbers": ("flags", ["--swap", 3], "it returned ['--swap', 3], expected a list of words"),
    "left_out is a list": ("left_out", ["*.x"], "it returned ['*.x'], expected pattern -> why"),
    "left_out has no reason": ("left_out", {"*.x": None}, "it returned {'*.x': None}, expected pattern -> why"),
    "respell is a list": ("respell", [1], "it returned [1], expected a configuration"),
    "respell is nothing": ("respell", None, "it returned None, expected a configuration"),
}


@pytest.mark.parametrize(("what", "answer", "message"), ANSWERS.values(), ids=ANSWERS)
def test_answer_of_a_wrong_kind_names_plugin_and_function(what, answer, message):
    with raises(what, message):
        FUNCTIONS[what](registry_of(model_type=replace(ACME, **{what: lambda *_: answer})))


@pytest.mark.parametrize(
    "said",
    [lambda h, layers: [f"--width {h['hidden_size']}", "--swap"], lambda h: [f"--width {h['hidden_size']}", "--swap"]],
)
def test_flags_are_those_of_the_models_sizes_and_end_the_training_flags(said):
    made = family_of(model_type=replace(ACME, flags=said))
    model = model_from_config(made, CONFIG, Options(), "config.json")
    assert training_flags(made, model.options, model.h, model.kept, {})[-2:] == ("--width 8", "--swap")


def test_flags_may_name_what_is_recorded_and_what_a_model_lacks_is_left_out():
    said = ("rotary_base", "swap", "off", "lacking", "--ratios {ratios}", "factors", "--plain")
    fields = {"lacking": count("lacking", default=None)}
    args = {"rotary_base": 5.5, "swap": True, "off": False, "ratios": [0, 4], "factors": {"long_factor": "a b"}}
    flags = family_of(model_type=replace(ACME, flags=said, fields=fields)).flags(H, LAYERS, args, "megatron")
    assert flags == ("--rotary-base 5.5", "--swap", "--ratios 0 4", "--long-factor 'a b'", "--plain")
    with raises("flags", "they speak of sawp, which is no field and not in args"):
        family_of(model_type=replace(ACME, flags=("sawp",))).flags(H, LAYERS, args, "mindspeed")


def test_megatron_is_told_what_a_family_says_under_its_own_names_and_once():
    said = replace(
        ACME,
        args={"rotary_interleaved": True, "add_rmsnorm_offset": True, "post_norm": True, "window": [3, 4]},
        flags=("add_rmsnorm_offset", "--rotary-base {rotary_base}.5", "--window-size {window}", "rotary_interleaved"),
    )
    made = family_of(model_type=said)
    model = model_from_config(made, CONFIG, Options(dialect="megatron"), "config.json")
    told = model.dialect.training_flags(made, model.options, model.h, model.kept, {})
    base = f"--rotary-base {model.h['rotary_base']}.5"
    assert told[-4:] == ("--apply-layernorm-1p", base, "--window-size 3 4", "--rotary-interleaved")
    assert len({each.partition(" ")[0] for each in told}) == len(told)
    args = model.dialect.make_args(made, model.h, model.options, model.kept, ())
    assert args["rotary_interleaved"] is args["apply_layernorm_1p"] is True
    assert not {"post_norm", "window"} & args.keys()


def test_flags_are_told_under_every_dialect_or_under_the_one_that_they_are_said_for():
    def of(**flags):
        made = family_of(model_type=replace(ACME, **flags))
        return [made.flags(H, LAYERS, H, dialect) for dialect in ("mindspeed", "megatron")]

    assert of(flags=("--swap",)) == [("--swap",)] * 2
    assert of(flags={"mindspeed": ("--swap", "hidden_size")}) == [("--swap", "--hidden-size 8"), ()]
    assert of(flags={"megatron": lambda h, layers: [f"--rows {len(layers)}"]}) == [(), ("--rows 2",)]


def test_functions_are_given_the_sizes_of_the_layers_that_are_kept():
    """What is left out has no entry in a list, as nothing is recorded of it."""
    fields = {"ratios": counts("ratios", each_layer=True)}

    def said(h, layers):
        return [f"--ratios {h['ratios']} of {h['num_layers']} for {[layer.index for layer in layers]}"]

    made = family_of(model_type=replace(ACME, fields=fields, flags=said))
    kept, h = [Layer(0, DENSE), Layer(2, DENSE), Layer(4, DENSE, mtp=0)], {**H, "ratios": [5, 6, 7, 8, 9]}
    assert made.flags(h, kept, h, "mindspeed") == ("--ratios [5, 7, 9] of 2 for [0, 2, 4]",)
    assert made.flags({**h, "num_layers": 2}, kept, h, "mindspeed")[0].startswith("--ratios [5, 6, 7, 8, 9] of 2")


def test_lists_with_an_entry_for_each_layer_are_told_as_the_training_script_reads_them():
    args = {"no_rope_freq": [0, 0, 1], "moe_layer_freq": [True, False], "compress_ratios": [0, 4], "rows": (1, 1)}
    said = ("no_rope_freq", "moe_layer_freq", "compress_ratios", "--linear-attention-freq {rows}", "--rows {rows}")
    assert family_of(model_type=replace(ACME, flags=said)).flags(H, LAYERS, args, "mindspeed") == (
        *("--no-rope-freq '([0]*2+[1]*1)'", "--moe-layer-freq '([1]*1+[0]*1)'", "--compress-ratios 0 4"),
        *("--linear-attention-freq '([1]*2)'", "--rows 1 1"),
    )


def test_names_of_a_model_type_hold_where_the_hook_says_nothing_and_some_only_where_a_field_is_true():
    biases, sink = {"attention.q_bias": L + "q.bias"}, Own("attention.sink", L + "sink", "sink.weight", "head")
    given = replace(
        ACME,
        fields={"biased": flag("biased", default=False)},
        names={"attention": {"attention.q": L + "q.weight"}, "mlp": {"mlp.up": L + "never"}},
        names_if={"biased": {"attention": biases}},
        own={"attention": [sink]},
    )
    made = family_of(model_type=given, names={**DECODER, "attention": None})
    plain = {"attention.q": L + "q.weight", "attention.sink": L + "sink"}
    assert made.names(("attention",), H) == plain
    assert made.names(("attention",), {**H, "biased": True}) == plain | biases
    assert made.names(("mlp",), H) == DECODER["mlp"]
    assert made.names(("unknown",), H) == {}


def test_names_of_an_mtp_layer_begin_with_its_own_prefix_where_there_is_one():
    made = family_of(model_type=replace(ACME, mtp_prefix="mtp.{mtp}."))
    assert made.layer_names(Layer(0, DENSE), H)["attention.q"] == "model.layers.{layer}.self_attn.q_proj.weight"
    assert made.layer_names(Layer(4, DENSE, mtp=0), H)["attention.q"] == "mtp.{mtp}.self_attn.q_proj.weight"


def test_tensors_that_hold_no_weights_are_left_out_before_what_a_model_has_besides():
    given = replace(ACME, ignored=("*.buffer",), left_out=lambda h: {"*.extra": f"of all {h['num_layers']} layers"})
    assert family_of(model_type=given).left_out(H) == {
        "*.buffer": "holds no weights", "*.extra": "of all 4 layers"
    }  # fmt: skip


def test_configuration_in_another_spelling_is_read_as_the_usual_one():
    def respell(config):
        return {"hidden_size": config["width"], **config} if "width" in config else config

    made = family_of(model_type=replace(ACME, respell=respell))
    other = {"width" if name == "hidden_size" else name: value for name, value in CONFIG.items()}
    there, usual = (model_from_config(made, config, Options(), "config.json") for config in (other, CONFIG))
    assert there.h == usual.h
    assert there.h["hidden_size"] == 8
    with pytest.raises(MscvtError, match="hidden_size is missing"):
        model_from_config(family_of(), other, Options(), "config.json")


def test_options_that_a_model_type_refuses_or_notes_are_said_when_a_model_is_made():
    made = family_of(model_type=replace(ACME, refused={"noop_layers": "have no slots"}))
    with pytest.raises(MscvtError, match="--noop-layers 4,5: acme have no slots") as caught:
        describe(made, noop_layers=(4, 5))
    assert caught.value.hint == "Leave out --noop-layers."
    made = family_of(model_type=replace(ACME, noted={"target_tensor_parallel_size": "are not trained so"}))
    for tensor, notes in ((2, ("--target-tensor-parallel-size 2: acme are not trained so",)), (1, ())):
        options = Options(target_tensor_parallel_size=tensor)
        assert model_from_config(made, CONFIG, options, "config.json").notes == notes


@pytest.mark.parametrize("answer", [None, [1], {"a": ...}, {"a": {1, 2}}, {1: 2}, {"a": [{"b": b""}]}], ids=repr)
def test_args_that_are_not_plain_name_the_plugin(answer):
    with raises("args", "it gives "):
        family_of(model_type=replace(ACME, args=lambda h, layers: answer)).args(H, LAYERS)


def test_args_that_are_plain_are_given_as_they_are():
    plain = {"a": 1, "b": [1.5, None, (True, "x")], "c": {"d": {}}}
    assert family_of(model_type=replace(ACME, args=plain)).args(H, LAYERS) == plain
    given = replace(ACME, args=lambda h, layers: {"n": h["num_layers"], "kept": len(layers)})
    assert family_of(model_type=given).args(H, LAYERS) == {"n": 2, "kept": 2}


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
    "respell": (replace(ACME, respell={}), "respell of 'acme' is {}, expected a function"),
    "flags": (replace(ACME, flags="--swap"), "flags of 'acme' is '--swap', expected a list of words, or a function"),
    "flags of a dialect": (replace(ACME, flags={"megatron": "--swap"}), "flags of 'acme' is {'megatron': '--swap'}, "),
    "brace": (replace(ACME, flags=("--w {swap",)), "flags of 'acme' is ('--w {swap',), expected a list of words"),
    "names": (
        replace(ACME, names=DECODER["attention"]),
        "names of 'acme' is mappingproxy({'norm.input': 'model.layers.{layer}.input_layernorm.weight', ",
    ),
    "names_if": (
        replace(ACME, names_if={"add_bias": {"attention": {}}}),
        "names_if of 'acme' speaks of add_bias, expected names of fields",
    ),
    "own": (replace(ACME, own={"attention": ["sink"]}), "own of 'acme' is {'attention': ['sink']}, expected block -> "),
    "left_out": (replace(ACME, left_out={"*.x": "y"}), "left_out of 'acme' is {'*.x': 'y'}, expected a function"),
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
        "plugin mscvt-acme 1.2, mscvt_names for acme: the block 'model' names no tensor for the role embedding",
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


def test_role_without_those_that_a_rule_takes_with_it_is_refused_with_their_names():
    kept = {role: name for role, name in DECODER["attention"].items() if role not in ("attention.k", "attention.v")}
    with pytest.raises(MscvtError, match=r"no rule for the role attention\.q of attention") as caught:
        describe(family_of(names=DECODER | {"attention": kept}))
    assert caught.value.hint.startswith("A rule takes it with attention.k, attention.v, which mscvt_names lacks")


def test_plain_plugin_needs_nothing_but_names():
    described = describe(family_of())
    assert len({parameter.key for parameter in described.parameters}) == 2 + 1 + 4 * 6
