"""Descriptions that can't be: a model without an output layer, rules that are another dialect's."""

import pytest
from small_models import NAMES, H, description, family

from mscvt.description.description import describe
from mscvt.dialects import megatron
from mscvt.dialects.options import Options
from mscvt.errors import MscvtError
from mscvt.layout.rules import TENSOR, whole
from mscvt.model.family import DENSE, Layer
from mscvt.model.layers import select_layers
from mscvt.model.options import with_defaults

HEADLESS = {**NAMES, "model": {role: name for role, name in NAMES["model"].items() if role != "head"}}
HEAD = whole("output_layer.weight", "my_head", "vocab hidden", cuts={"vocab": TENSOR})


def test_model_without_an_output_layer_is_refused_unless_it_is_tied():
    made = family([Layer(0, DENSE)], names=HEADLESS)
    with pytest.raises(MscvtError, match="it names no tensor for the role head, and tie_word_embeddings isn't") as one:
        description(made=made)
    assert "flag('tie_word_embeddings', default=True)" in one.value.hint
    tied = description({**H, "tie_word_embeddings": True}, made)
    assert "output_layer.weight" not in {parameter.key for parameter in tied.parameters}


def test_output_layer_may_be_a_familys_own():
    names = {**HEADLESS, "model": {**HEADLESS["model"], "my_head": "my_head.weight"}}
    described = description(made=family([Layer(0, DENSE)], [HEAD], names))
    assert [p.key for p in described.parameters if "my_head.weight" in p.names] == ["output_layer.weight"]


def test_rules_for_another_dialect_are_refused_and_the_author_told_how_to_say_that_they_hold():
    made = family([Layer(0, DENSE)], [whole("mlp.own", "mlp.up", "ffn hidden")])
    filled = with_defaults(Options(dialect="megatron"))
    selection = select_layers(made.layers(H), filled)
    topology = megatron.topology(filled, selection.decoder_count)
    with pytest.raises(MscvtError, match="has rules of its own for small, and not for this dialect") as caught:
        describe(made, H, filled, topology, selection, megatron)
    assert "says dialects=('megatron',) in its ModelType" in caught.value.hint
