"""What `args` record in other words than ours, and settings under which the same numbers mean something else."""

import re

import pytest

from mscvt.dialects.mindspeed.args_meaning import check_meaning
from mscvt.dialects.mindspeed.args_read import absent_copies, read_hyperparameters, read_model_type, read_options
from mscvt.dialects.mindspeed.args_words import in_our_words
from mscvt.dialects.mindspeed.options import Options
from mscvt.dialects.mindspeed.pipeline import topology
from mscvt.errors import MscvtError
from mscvt.model.family import Layer, ModelType
from mscvt.model.fields import count
from mscvt.model.options import with_defaults
from mscvt.plugins.blocks import DECODER
from mscvt.plugins.family import Family, Plugin

H = {
    "num_layers": 6,
    "hidden_size": 20,
    "ffn_hidden_size": 14,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "kv_channels": 5,
    "vocab_size": 22,
    "tie_word_embeddings": False,
    "norm_epsilon": 1e-5,
    "rotary_base": 5e5,
    "seq_length": 64,
}
"""What a config.json says of a small model, under our names."""
TRAINED = {
    "tensor_model_parallel_size": 1,
    "pipeline_model_parallel_size": 1,
    "num_layers": 6,
    "hidden_size": 20,
    "ffn_hidden_size": 14,
    "num_attention_heads": 4,
    "group_query_attention": True,
    "num_query_groups": 2,
    "kv_channels": 5,
    "vocab_size": 22,
    "untie_embeddings_and_output_weights": True,
    "norm_epsilon": 1e-5,
    "rotary_base": 500000,
    "seq_length": 64,
}
"""What a training run of it records, on one rank."""


def family(layer=("attention", "mlp"), dense=0, **fields):
    """A family whose layers, after some dense ones, are of one kind."""
    names = {**DECODER, "moe": {"moe.router": "model.layers.{layer}.gate.weight"}}
    kinds = [("attention", "mlp")] * dense + [layer] * (6 - dense)
    hooks = {
        "mscvt_names": lambda model_type, block, hyperparameters: names.get(block),
        "mscvt_layers": lambda model_type, hyperparameters: [Layer(n, kind) for n, kind in enumerate(kinds)],
    }
    return Family(ModelType("small", ("small",), fields), Plugin("mscvt-small", "1", "small = small"), hooks)


EXPERT_FIELDS = {"num_experts": count("num_experts"), "moe_intermediate_size": count("moe_intermediate_size")}
EXPERTS = {"num_experts": 4, "moe_intermediate_size": 6}


def mixture(dense=0):
    return family(("attention", "moe"), dense, **EXPERT_FIELDS)


def words(args, *, has_experts=False):
    return in_our_words(args, has_experts=has_experts)


def options_of(args, *, has_experts=False, **asked):
    """The options as the way back reads them."""
    return read_options(words(args, has_experts=has_experts).args, Options(**asked))[0]


def sizes_of(args, configured=None, made=None, **asked):
    """The sizes as the way back reads them."""
    made = made or family()
    spoken = words(args, has_experts="num_experts" in made.model_type.fields).args
    options = with_defaults(read_options(spoken, Options(**asked))[0])
    return read_hyperparameters(spoken, made, options, configured)


def stages_of(args):
    """How many slots each chunk of each stage has."""
    options = with_defaults(options_of(args))
    made = topology(options, args["num_layers"])
    return [(chunk.stage, chunk.name, len(chunk.slots)) for chunk in made.chunks]


@pytest.mark.parametrize(
    "said",
    [
        {"expert_model_parallel_size": 1},
        {"expert_tensor_parallel_size": 1},
        {"expert_tensor_parallel_size": 2},
        {"moe_grouped_gemm": True},
        {"moe_tp_extend_ep": True},
        {"first_k_dense_replace": 0},
    ],
    ids=str,
)
def test_expert_options_mean_nothing_without_experts(said):
    args = {**TRAINED, "tensor_model_parallel_size": 2, **said}
    options = options_of(args)
    assert options.target_expert_parallel_size is None
    assert options.expert_tensor_parallel_size is None
    assert not options.moe_grouped_gemm
    assert not options.moe_tp_extend_ep
    assert sizes_of(args)["num_layers"] == 6


@pytest.mark.parametrize(
    ("said", "noted"),
    [
        ({"moe_grouped_gemm": True}, ["moe_grouped_gemm"]),
        ({"expert_tensor_parallel_size": 2, "moe_tp_extend_ep": True}, ["expert_tensor_parallel_size", "moe_tp"]),
        ({"expert_tensor_parallel_size": 1, "expert_model_parallel_size": 1, "moe_grouped_gemm": False}, []),
        ({"moe_grouped_gemm": None}, []),
    ],
    ids=str,
)
def test_expert_options_that_say_something_are_noted_without_experts(said, noted):
    notes = words({**TRAINED, **said}).notes
    assert len(notes) == len(noted)
    for name in noted:
        assert any(f"args record {name}" in note for note in notes), notes


def test_expert_options_are_kept_with_experts():
    args = {**TRAINED, "moe_grouped_gemm": True, "expert_model_parallel_size": 2, **EXPERTS}
    spoken = words(args, has_experts=True)
    assert spoken.notes == ()
    options = options_of(args, has_experts=True)
    assert (options.moe_grouped_gemm, options.target_expert_parallel_size) == (True, 2)


def test_what_was_recorded_is_not_changed_itself():
    args = {**TRAINED, "moe_grouped_gemm": True, "decoder_first_pipeline_num_layers": 6}
    before = dict(args)
    words(args)
    assert args == before


def test_experts_are_as_wide_as_the_ffn_where_nothing_else_is_recorded():
    args = {**TRAINED, "ffn_hidden_size": 6, "num_experts": 4}
    assert sizes_of(args, made=mixture())["moe_intermediate_size"] == 6
    assert sizes_of(args, {**H, **EXPERTS}, mixture())["moe_intermediate_size"] == 6


@pytest.mark.parametrize("name", ["moe_intermediate_size", "moe_ffn_hidden_size"])
def test_recorded_width_of_experts_is_taken_before_the_ffn(name):
    assert sizes_of({**TRAINED, "num_experts": 4, name: 6}, made=mixture())["moe_intermediate_size"] == 6


def test_ffn_means_nothing_where_no_layer_is_dense():
    sizes = sizes_of({**TRAINED, "ffn_hidden_size": 6, **EXPERTS}, {**H, **EXPERTS}, mixture())
    assert sizes["ffn_hidden_size"] == 14


def test_ffn_that_contradicts_is_an_error_where_a_layer_is_dense():
    with pytest.raises(MscvtError, match=r"ffn_hidden_size: the checkpoint's args record 6, config\.json says 14"):
        sizes_of({**TRAINED, "ffn_hidden_size": 6, **EXPERTS}, {**H, **EXPERTS}, mixture(dense=1))


def test_width_of_experts_that_contradicts_is_an_error():
    with pytest.raises(MscvtError, match=r"moe_intermediate_size: the checkpoint's args record 8, config\.json says 6"):
        sizes_of({**TRAINED, **EXPERTS, "moe_intermediate_size": 8}, {**H, **EXPERTS}, mixture())


FIRST, LAST = "decoder_first_pipeline_num_layers", "decoder_last_pipeline_num_layers"


@pytest.mark.parametrize(
    ("stages", "first", "last", "expected"),
    [
        (2, 4, None, (4, 2)),
        (2, None, 1, (5, 1)),
        (2, 4, 2, (4, 2)),
        (3, 2, None, (2, 2, 2)),
        (4, 0, None, (0, 2, 2, 2)),
        (4, 1, 1, (1, 2, 2, 1)),
        (1, 6, None, (6,)),
        (2, None, None, (3, 3)),
    ],
)
def test_first_and_last_stage_may_have_another_length(stages, first, last, expected):
    args = {**TRAINED, "pipeline_model_parallel_size": stages, FIRST: first, LAST: last}
    assert stages_of(args) == [(stage, "model", number) for stage, number in enumerate(expected)]


def test_recorded_list_of_stages_is_taken_before_their_ends():
    args = {**TRAINED, "pipeline_model_parallel_size": 2, FIRST: 4, "num_layer_list": "1,5"}
    assert options_of(args).num_layer_list == (1, 5)


@pytest.mark.parametrize(
    ("stages", "first", "last"), [(3, 3, None), (2, 7, None), (2, 4, 1), (1, 3, 3), (1, 5, None)], ids=str
)
def test_ends_that_leave_no_equal_stages_are_an_error(stages, first, last):
    with pytest.raises(MscvtError, match="the others can't have equally many") as caught:
        words({**TRAINED, "pipeline_model_parallel_size": stages, FIRST: first, LAST: last})
    assert f"6 layers on {stages} stages, {first} on the first and {last} on the last" in str(caught.value)


@pytest.mark.parametrize(
    "said", [{FIRST: "four"}, {LAST: 1.5}, {FIRST: 4, "num_layers": None}, {FIRST: True}, {LAST: [2]}], ids=str
)
def test_ends_that_are_no_numbers_are_an_error(said):
    with pytest.raises(MscvtError, match="can't be understood"):
        words({**TRAINED, "pipeline_model_parallel_size": 2, **said})


NUMBERS = ("virtual_pipeline_model_parallel_size", "num_virtual_stages_per_pipeline_rank", "vpp_size")


@pytest.mark.parametrize("name", NUMBERS)
def test_virtual_stages_are_read_by_their_number(name):
    args = {**TRAINED, "pipeline_model_parallel_size": 2, "num_layers": 12, name: 3}
    assert stages_of(args) == [(stage, f"model{n}", 2) for stage in range(2) for n in range(3)]


@pytest.mark.parametrize("said", [{NUMBERS[0]: 1}, {NUMBERS[0]: None}, {}], ids=str)
def test_one_virtual_stage_is_none(said):
    args = {**TRAINED, "pipeline_model_parallel_size": 2, **said}
    assert stages_of(args) == [(0, "model", 3), (1, "model", 3)]


def test_length_of_virtual_stages_is_taken_before_their_number():
    said = {"num_layers_per_virtual_pipeline_stage": 1, NUMBERS[0]: 7}
    assert options_of({**TRAINED, "pipeline_model_parallel_size": 2, **said}).num_layers_per_virtual_pipeline_stage == 1


def test_two_chunks_of_dualpipev_are_no_virtual_stages():
    said = {"schedules_method": "dualpipev", NUMBERS[0]: 2, "num_layers": 8}
    options = options_of({**TRAINED, "pipeline_model_parallel_size": 2, **said})
    assert (options.num_layers_per_virtual_pipeline_stage, options.schedules_method) == (None, "dualpipev")


@pytest.mark.parametrize("said", [{"num_layers": 10}, {FIRST: 4}], ids=str)
def test_virtual_stages_of_unequal_length_are_an_error(said):
    args = {**TRAINED, "pipeline_model_parallel_size": 2, NUMBERS[0]: 2, "num_layers": 8, **said}
    with pytest.raises(MscvtError, match=f"2 virtual stages .{NUMBERS[0]}. for each of 2 stages with .* not all equal"):
        words(args)


@pytest.mark.parametrize("number", ["2", 0, -1, 1.5], ids=repr)
def test_number_of_virtual_stages_that_is_none_is_an_error(number):
    with pytest.raises(MscvtError, match=f"{NUMBERS[0]} = .*can't be understood"):
        words({**TRAINED, "pipeline_model_parallel_size": 2, NUMBERS[0]: number})


@pytest.mark.parametrize("said", [{"num_layers": None}, {"num_layers": "six"}, {"num_layers": 3}], ids=str)
def test_wrong_number_of_layers_is_left_to_whom_it_concerns(said):
    args = {**TRAINED, "pipeline_model_parallel_size": 2, NUMBERS[0]: 2, **said}
    assert words(args).args.get("num_layers_per_virtual_pipeline_stage") is None


@pytest.mark.parametrize(
    ("pattern", "dense"),
    [([0, 0, 1, 1, 1, 1], 2), ((1,) * 6, 0), ([0] * 6, 6), ([False, True], 1), ([], 0)],
    ids=str,
)
def test_layers_with_experts_are_read_from_a_list(pattern, dense):
    args = words({**TRAINED, "moe_layer_freq": pattern}, has_experts=True).args
    assert (args["moe_layer_freq"], args["first_k_dense_replace"]) == (1, dense)


def test_recorded_number_of_dense_layers_is_taken_before_the_list():
    args = words({"moe_layer_freq": [0, 1, 1], "first_k_dense_replace": 1}, has_experts=True).args
    assert (args["moe_layer_freq"], args["first_k_dense_replace"]) == (1, 1)


@pytest.mark.parametrize(("said", "read"), [("1", 1), (" 2 ", 2), (1, 1), (None, None), ("[0]", "[0]")], ids=repr)
def test_number_of_layers_from_one_with_experts_to_the_next_is_read(said, read):
    args = words({"moe_layer_freq": said}, has_experts=True).args
    assert args == {"moe_layer_freq": read} | {"moe_intermediate_size": None}


@pytest.mark.parametrize("pattern", [[0, 1, 0, 1], [1, 0], [0, 2]], ids=str)
def test_dense_layers_behind_others_are_an_error(pattern):
    with pytest.raises(MscvtError, match=re.escape(f"(moe_layer_freq = {pattern})")):
        words({"moe_layer_freq": pattern}, has_experts=True)


def test_list_of_layers_with_experts_means_nothing_without_experts():
    assert sizes_of({**TRAINED, "moe_layer_freq": [0, 1, 0, 1, 0, 1]})["num_layers"] == 6


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


PARTS = frozenset({"attention", "mlp"})
MEANINGS = {
    "apply_layernorm_1p": True,
    "add_rmsnorm_offset": True,
    "normalization": "LayerNorm",
    "position_embedding_type": "learned_absolute",
    "rotary_interleaved": True,
    "swiglu": False,
    "geglu": True,
    "squared_relu": True,
    "quick_geglu": True,
    "openai_gelu": True,
    "add_bias_linear": True,
    "add_dense_bias": True,
    "add_qkv_bias": True,
    "attention_output_gate": True,
    "post_norm": True,
}
"""Setting -> a value under which a plain decoder's weights mean something else."""


@pytest.mark.parametrize("name", MEANINGS)
def test_setting_that_changes_what_numbers_mean_is_refused_unless_it_is_the_familys(name):
    args = {name: MEANINGS[name]}
    with pytest.raises(MscvtError, match=f"weights mean something else: {name} is {MEANINGS[name]!r}, expected"):
        check_meaning(args, {}, PARTS)
    check_meaning(args, args, PARTS)
    with pytest.raises(MscvtError, match=f"{name} is 'odd', expected {MEANINGS[name]!r}"):
        check_meaning({name: "odd"}, args, PARTS)


@pytest.mark.parametrize(
    "args",
    [
        {},
        dict.fromkeys(MEANINGS),
        {"normalization": "RMSNorm", "position_embedding_type": "rope", "swiglu": True, "post_norm": False},
        {"position_embedding_type": "yarn", "rotary_interleaved": 0},
        {"hidden_dropout": 0.5},
    ],
    ids=str,
)
def test_usual_settings_and_those_that_are_not_recorded_are_taken(args):
    check_meaning(args, {}, PARTS)


def test_settings_of_parts_that_the_model_lacks_mean_nothing():
    check_meaning({"position_embedding_type": "none", "swiglu": False}, {}, frozenset({"mamba"}))
    with pytest.raises(MscvtError, match="swiglu is False"):
        check_meaning({"position_embedding_type": "none", "swiglu": False}, {}, frozenset({"moe"}))


def test_every_setting_that_differs_is_listed_at_once():
    with pytest.raises(MscvtError) as caught:
        check_meaning(MEANINGS, {"add_qkv_bias": True}, PARTS)
    assert len(caught.value.faults) == len(MEANINGS) - 1
    assert not any(fault.startswith("add_qkv_bias") for fault in caught.value.faults)


def test_what_mscvt_recorded_itself_is_read_where_it_is_text():
    assert read_model_type({"model_type_hf": "small"}) == "small"
    assert read_model_type({"model_type_hf": 3}) is None
    assert absent_copies({"absent_mtp_copies": ["0.head", 3]}) == ("0.head",)
    assert absent_copies({"absent_mtp_copies": "0.head"}) is None
