"""Wrong answers of a plugin: every one is an error that names the plugin, its version and the hook."""

from dataclasses import replace

import pytest
from small_plugins import H, family_of, raises

from mscvt import DECODER, DENSE, Layer, MscvtError, Rule, Source, whole
from mscvt.dialects import mindspeed
from mscvt.dialects.mindspeed.rule_blocks import Blocks
from mscvt.dialects.options import Options
from mscvt.model.options import with_defaults

BLOCKS, PREFIXES = Blocks("mindspeed", options=with_defaults(Options())), ("decoder.layers.", "mtp.layers.")


def topology(layers=4, **options):
    return mindspeed.topology(with_defaults(Options(**options)), layers)


L = "model.layers.{layer}."
NAMES = {
    "list": (["attention.q"], "it returned ['attention.q'] for 'attention', expected role -> name"),
    "text": ("attention.q", "it returned 'attention.q' for 'attention', expected role -> name"),
    "number as name": ({"attention.q": 3}, "it returned {'attention.q': 3} for 'attention', expected role -> name"),
    "number as role": ({1: "a"}, "it returned {1: 'a'} for 'attention', expected role -> name"),
    "stray brace": (
        {"attention.q": "layers.{layer.q"},
        "attention.q has the name 'layers.{layer.q': expected '}' before end of string",
    ),
    "stray closing brace": ({"attention.q": "layer}"}, "attention.q has the name 'layer}': Single '}' encountered"),
    "no layer": ({"attention.q": "q.weight"}, "attention.q of a layer has the name 'q.weight', which needs {layer}"),
    "two names": (
        {"mlp.up": L + "other"},
        "mlp.up has two names in one layer, 'model.layers.{layer}.other' and "
        "'model.layers.{layer}.mlp.up_proj.weight' ('mlp')",
    ),
}


@pytest.mark.parametrize(("answer", "what"), NAMES.values(), ids=NAMES)
def test_names_that_are_none_name_plugin_and_hook(answer, what):
    family = family_of(names={**DECODER, "attention": answer})
    with raises("mscvt_names", what):
        family.layer_names(Layer(0, DENSE), H)


def test_layer_whose_blocks_nobody_names_is_an_error():
    with raises("mscvt_names", "it has no block 'gdn', and layer 0 consists of gdn"):
        family_of().layer_names(Layer(0, ("gdn",)), H)


def test_names_of_blocks_are_merged_and_the_same_name_may_stand_in_two():
    family = family_of(names={**DECODER, "more": {"norm.input": DECODER["attention"]["norm.input"], "own": L + "own"}})
    merged = family.layer_names(Layer(0, (*DENSE, "more")), H)
    assert merged == {**DECODER["attention"], **DECODER["mlp"], "own": L + "own"}
    assert family.names(("unknown",), H) == {}


def test_name_in_an_mtp_layer_may_lack_the_layers_number():
    family = family_of(names={"mlp": {"mlp.up": "mtp.up.weight"}})
    assert family.layer_names(Layer(4, ("mlp",), mtp=0), H) == {"mlp.up": "mtp.up.weight"}


def fails():
    return 1 / 0


HOOKS = {
    "mscvt_names": lambda family: family.names(("attention",), H),
    "mscvt_layers": lambda family: family.layers(H),
    "mscvt_split_rules": lambda family: family.rules(H, BLOCKS, PREFIXES),
    "mscvt_placement": lambda family: family.placement(topology(), [Layer(0, DENSE)]),
}


@pytest.mark.parametrize("hook", HOOKS)
def test_hook_that_fails_names_plugin_hook_and_cause(hook):
    family = family_of(names=lambda block: 1 / 0) if hook == "mscvt_names" else family_of(**{hook: fails})
    with raises(hook, "failed: ZeroDivisionError: division by zero") as caught:
        HOOKS[hook](family)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "--debug" in caught.value.hint


def test_error_that_a_hook_raises_itself_is_passed_on():
    def refuse():
        raise MscvtError("this model is not for sale", hint="Ask.")

    with pytest.raises(MscvtError, match=r"^this model is not for sale$"):
        family_of(mscvt_layers=refuse).layers(H)


ITEMS = {
    "mscvt_layers": ("Layer", [(n for n in range(4)), [0, 1], "layers", {Layer(0, DENSE)}]),
    "mscvt_split_rules": ("Rule", ["rules", [("a", "b")], Rule("a", "b", ())]),
    "mscvt_placement": ("tuple", [[1, 2], [[0, "model", 0]], "0"]),
}


@pytest.mark.parametrize(
    ("hook", "answer"),
    [(hook, answer) for hook, (_, all_of) in ITEMS.items() for answer in all_of],
    ids=lambda of: type(of).__name__,
)
def test_answer_of_a_wrong_kind_names_plugin_and_hook(hook, answer):
    with raises(hook, "it returned ") as caught:
        HOOKS[hook](family_of(**{hook: answer}))
    assert caught.value.message.endswith(f", expected a list of {ITEMS[hook][0]}")
    assert "report it" in caught.value.hint


LAYERS = {
    "kind is text": ([Layer(0, "dense")], "layer 0 has the kind 'dense', expected a tuple of blocks"),
    "block is no text": ([Layer(0, DENSE), Layer(1, (1,))], "layer 1 has the kind (1,), expected a tuple of blocks"),
    "MTP first": ([Layer(1, DENSE, mtp=0), Layer(0, DENSE)], "an MTP layer stands before a decoder layer"),
    "sizes are text": (
        [Layer(0, DENSE, sizes={"ffn": "12"})],
        "layer 0 has the sizes {'ffn': '12'}, expected names of whole numbers",
    ),
    "sizes are a list": ([Layer(0, DENSE, sizes=[("ffn", 12)])], "layer 0 has the sizes [('ffn', 12)], expected names"),
    "size is below zero": ([Layer(0, DENSE, sizes={"ffn": -1})], "layer 0 has the sizes {'ffn': -1}, expected names"),
    "size is true": ([Layer(0, DENSE, sizes={"ffn": True})], "layer 0 has the sizes {'ffn': True}, expected names"),
}


@pytest.mark.parametrize(("layers", "what"), LAYERS.values(), ids=LAYERS)
def test_layers_that_are_none_name_plugin_and_hook(layers, what):
    with raises("mscvt_layers", what):
        family_of(mscvt_layers=layers).layers(H)


GOOD = whole("own.weight", "own", "hidden ffn")
RULES = {
    "prefix": (replace(GOOD, key="decoder.layers.{layer}.own"), "the key 'decoder.layers.{layer}.own' has the layer's"),
    "mtp prefix": (replace(GOOD, key="mtp.layers.0.own"), "the key 'mtp.layers.0.own' has the layer's prefix"),
    "misspelt cut": (replace(GOOD, cuts={"fnn": "tensor"}), "rule 'own.weight' is not well formed: cuts fnn"),
    "no layout": (replace(GOOD, axes="(hidden ffn"), "layout '(hidden ffn', at character 1: the group"),
    "sources are one": (replace(GOOD, sources=Source("own", "hidden ffn")), "it returned Rule("),
    "sources are text": (replace(GOOD, sources="own"), "it returned Rule("),
    "source is text": (replace(GOOD, sources=("own",)), "it returned Rule("),
    "role is none": (replace(GOOD, sources=(Source(None, "hidden ffn"),)), "it returned Rule("),
    "axes are a tuple": (replace(GOOD, axes=("hidden", "ffn")), "it returned Rule("),
    "key is a number": (replace(GOOD, key=1), "it returned Rule("),
    "cuts are a tuple": (replace(GOOD, cuts=("ffn", "tensor")), "it returned Rule("),
    "cut is a tuple": (replace(GOOD, cuts={"ffn": ("tensor",)}), "it returned Rule("),
    "beside is text": (replace(GOOD, beside="mlp.up"), "it returned Rule("),
}


@pytest.mark.parametrize(("rule", "what"), RULES.values(), ids=RULES)
def test_rules_that_are_none_name_plugin_and_hook(rule, what):
    with raises("mscvt_split_rules", what) as caught:
        family_of(mscvt_split_rules=[GOOD, rule]).rules(H, BLOCKS, PREFIXES)
    if what.startswith("it returned"):
        assert caught.value.message.endswith("expected text and a tuple of Source")


PLACES = {
    "too few": ([(0, "model", 0)], "it placed 1 of 4 layers"),
    "no such stage": (
        [(0, "model", 0), (0, "model", 1), (1, "model", 0), (2, "model", 0)],
        "layer 3 is placed at (2, ",
    ),
    "no such chunk": (
        [(0, "model", 0), (0, "model1", 1), (1, "model", 0), (1, "model", 1)],
        "layer 1 is placed at (0, ",
    ),
    "beyond the chunk": ([(0, "model", 0), (0, "model", 2), (1, "model", 0), (1, "model", 1)], "has 2 slots"),
    "below zero": ([(0, "model", -1), (0, "model", 0), (1, "model", 0), (1, "model", 1)], "has 2 slots"),
    "text as number": (
        [(0, "model", "0"), (0, "model", 1), (1, "model", 0), (1, "model", 1)],
        "expected stage, chunk and",
    ),
    "list as stage": (
        [([0], "model", 0), (0, "model", 1), (1, "model", 0), (1, "model", 1)],
        "expected stage, chunk and",
    ),
    "pair": ([(0, "model"), (0, "model", 1), (1, "model", 0), (1, "model", 1)], "expected stage, chunk and number"),
    "two at one place": (
        [(0, "model", 0), (0, "model", 1), (1, "model", 0), (0, "model", 1)],
        "layers 1 and 3 are both placed at (0, 'model', 1)",
    ),
}


@pytest.mark.parametrize(("places", "what"), PLACES.values(), ids=PLACES)
def test_placement_outside_of_the_topology_names_plugin_and_hook(places, what):
    layers = [Layer(n, DENSE) for n in range(4)]
    with raises("mscvt_placement", "it placed") as caught:
        family_of(mscvt_placement=places).placement(topology(target_pipeline_parallel_size=2), layers)
    assert what in str(caught.value)


def test_all_layers_that_are_placed_nowhere_are_named_at_once():
    places = [(9, "model", 0), (0, "model", 9), (0, "x", 0), (0, "model", 0)]
    with pytest.raises(MscvtError) as caught:
        family_of(mscvt_placement=places).placement(topology(), [Layer(n, DENSE) for n in range(4)])
    assert len(caught.value.faults) == 3


def test_mtp_layer_may_have_the_number_of_a_decoder_layer():
    layers = [Layer(0, DENSE), Layer(1, DENSE, mtp=0)]
    places = [(0, "model", 0), (0, "model", 0)]
    assert family_of(mscvt_placement=places).placement(topology(1), layers) == places
