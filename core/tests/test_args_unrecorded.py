"""What `args` don't record: it is read from the configuration and the options, or the hint says from where."""

import pytest
from trained_args import EXPERT_FIELDS, EXPERTS, TRAINED, H, family, options_of, sizes_of, words

from mscvt.dialects.args_read import absent_copies, read_model_type, read_options
from mscvt.dialects.options import Options
from mscvt.errors import MscvtError
from mscvt.model.fields import count


def test_nothing_recorded_is_read_from_configuration_and_options():
    asked = {"target_tensor_parallel_size": 2, "target_pipeline_parallel_size": 3, "noop_layers": (0, 7)}
    options, notes = read_options(words({}).args, Options(**asked))
    assert (options, notes) == (Options(**asked), ())
    sizes = sizes_of({}, H, **asked)
    assert {name: sizes[name] for name in H} == H
    assert sizes["padded_vocab_size"] == 22


@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings_that_are_not_recorded_are_as_configured(tied):
    args = {name: value for name, value in TRAINED.items() if not name.startswith("untie")}
    assert sizes_of(args, {**H, "tie_word_embeddings": tied})["tie_word_embeddings"] is tied
    assert sizes_of(args)["tie_word_embeddings"] is False


@pytest.mark.parametrize(
    ("said", "groups"),
    [
        ({}, 2),
        ({"group_query_attention": None, "num_query_groups": None}, 2),
        ({"group_query_attention": False, "num_query_groups": 1}, 4),
        ({"group_query_attention": True, "num_query_groups": 2}, 2),
        ({"num_key_value_heads": 2}, 2),
    ],
    ids=str,
)
def test_groups_that_are_not_recorded_are_as_configured(said, groups):
    args = {name: value for name, value in TRAINED.items() if "group" not in name} | said
    assert sizes_of(args, {**H, "num_query_groups": groups})["num_query_groups"] == groups


def test_layers_that_are_not_recorded_may_be_asked_for():
    assert sizes_of({}, H, num_layers=4)["num_layers"] == 4
    made = family(("attention", "moe"), 1, **EXPERT_FIELDS, first_k_dense_replace=count("first_k_dense_replace"))
    sizes = sizes_of({}, {**H, **EXPERTS, "first_k_dense_replace": 3}, made, num_layers=4, first_k_dense_replace=1)
    assert (sizes["num_layers"], sizes["first_k_dense_replace"]) == (4, 1)


@pytest.mark.parametrize("asked", [{"num_layers": 4}, {"first_k_dense_replace": 1}], ids=str)
def test_other_layers_than_recorded_are_an_error(asked):
    with pytest.raises(MscvtError, match="is not what the checkpoint's args record"):
        options_of(TRAINED, **asked)


UNPADDED = {name: value for name, value in TRAINED.items() if name != "vocab_size"}


@pytest.mark.parametrize(
    ("args", "configured", "padded"),
    [
        (UNPADDED, H, 32),
        ({}, H, 32),
        (TRAINED, None, 32),
        ({**TRAINED, "padded_vocab_size": 48}, None, 48),
        ({**UNPADDED, "padded_vocab_size": 48}, H, 48),
    ],
)
def test_padding_that_is_not_recorded_is_as_asked_for(args, configured, padded):
    asked = {"target_tensor_parallel_size": 2, "make_vocab_size_divisible_by": 8}
    args = {**args, **({"tensor_model_parallel_size": 2} if args else {})}
    if "padded_vocab_size" in args:
        asked.pop("make_vocab_size_divisible_by")
    sizes = sizes_of(args, configured, **asked)
    assert (sizes["vocab_size"], sizes["padded_vocab_size"]) == (22, padded)


def test_padding_that_contradicts_what_is_recorded_is_an_error():
    args = {**TRAINED, "padded_vocab_size": 24, "make_vocab_size_divisible_by": 4}
    assert options_of(args, make_vocab_size_divisible_by=4).make_vocab_size_divisible_by is None
    with pytest.raises(MscvtError, match="--make-vocab-size-divisible-by 8 is not what") as caught:
        options_of(args, make_vocab_size_divisible_by=8)
    assert "Leave out --make-vocab-size-divisible-by" in caught.value.hint


CONFIG_GIVEN = "Give the model's config.json with --hf-cfg-dir."


@pytest.mark.parametrize("name", ["hidden_size", "ffn_hidden_size", "num_attention_heads", "num_layers", "vocab_size"])
def test_hint_leads_on_where_a_size_is_not_recorded(name):
    args = {other: value for other, value in TRAINED.items() if other != name}
    with pytest.raises(MscvtError, match=f"{name} is not recorded") as caught:
        sizes_of(args)
    assert caught.value.hint == CONFIG_GIVEN
    assert sizes_of(args, H)[name] == H[name]


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ({"noop_layers": "5"}, {"noop_layers": (4,)}),
        ({"noop_layers": None}, {"noop_layers": (4,)}),
        ({"pipeline_model_parallel_size": 2}, {"target_pipeline_parallel_size": 3}),
        ({"mtp_num_layers": 1}, {"mtp_num_layers": 0}),
        ({"num_layers": 6}, {"num_layers": 5}),
        ({"make_vocab_size_divisible_by": 128, "padded_vocab_size": 128}, {"make_vocab_size_divisible_by": 64}),
    ],
    ids=str,
)
def test_hint_leads_on_where_an_option_contradicts(said, asked):
    args = {**TRAINED, **said}
    with pytest.raises(MscvtError) as caught:
        options_of(args, **asked)
    assert "eave" in caught.value.hint
    assert " out" in caught.value.hint
    assert sizes_of(args)["hidden_size"] == 20


def test_size_of_1_on_the_way_back_is_noted_and_means_nothing():
    options, notes = read_options({**TRAINED, "tensor_model_parallel_size": 2}, Options(target_tensor_parallel_size=1))
    assert options.target_tensor_parallel_size == 2
    assert notes == ("--target-tensor-parallel-size 1 means nothing on the way back: the checkpoint's args record 2",)


def test_what_mscvt_recorded_itself_is_read_where_it_is_text():
    assert read_model_type({"model_type_hf": "small"}) == "small"
    assert read_model_type({"model_type_hf": 3}) is None
    assert absent_copies({"absent_mtp_copies": ["0.head", 3]}) == ("0.head",)
    assert absent_copies({"absent_mtp_copies": "0.head"}) is None
