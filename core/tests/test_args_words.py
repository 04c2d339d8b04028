"""What `args` record in other words than ours."""

import re

import pytest
from trained_args import EXPERTS, TRAINED, H, mixture, options_of, sizes_of, words

from mscvt.dialects.mindspeed.pipeline import topology
from mscvt.errors import MscvtError
from mscvt.model.options import with_defaults


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
    read = words({**TRAINED, "moe_layer_freq": pattern}, "first_k_dense_replace", has_experts=True)
    assert (read.args["moe_layer_freq"], read.args["first_k_dense_replace"]) == (1, dense)
    assert read.experts == pattern


def test_recorded_number_of_dense_layers_is_taken_before_the_list():
    said = {"moe_layer_freq": [0, 1, 1], "first_k_dense_replace": 1}
    args = words(said, "first_k_dense_replace", has_experts=True).args
    assert (args["moe_layer_freq"], args["first_k_dense_replace"]) == (1, 1)


@pytest.mark.parametrize(("pattern", "dense", "step"), [([0, 0, 1], 2, 1), ([0, 0, 1], 1, 2), ([0, 0], 1, 2)], ids=str)
def test_recorded_number_of_dense_layers_tells_how_the_others_are_spread(pattern, dense, step):
    said, fields = (
        {"moe_layer_freq": pattern, "first_k_dense_replace": dense},
        ("first_k_dense_replace", "moe_layer_freq"),
    )
    args = words(said, *fields, has_experts=True).args
    assert (args["moe_layer_freq"], args["first_k_dense_replace"]) == (step, dense)


def test_recorded_number_of_dense_layers_that_contradicts_the_list_is_an_error():
    said = {"moe_layer_freq": [0, 1, 1], "first_k_dense_replace": 2}
    with pytest.raises(MscvtError, match="experts in other layers"):
        words(said, "first_k_dense_replace", has_experts=True)


@pytest.mark.parametrize(("fields", "step"), [(("moe_layer_freq",), 2), ((), None)], ids=str)
def test_every_other_layer_is_read_from_a_list_where_the_model_type_says_it_so(fields, step):
    said = {"moe_layer_freq": [0, 0, 1, 0, 1, 0]}
    if step is None:
        with pytest.raises(MscvtError, match="experts in other layers"):
            words(said, "first_k_dense_replace", has_experts=True)
    else:
        args = words(said, "first_k_dense_replace", *fields, has_experts=True).args
        assert (args["moe_layer_freq"], args["first_k_dense_replace"]) == (step, 1)


def test_list_of_layers_is_read_as_that_of_dense_ones():
    args = words({"moe_layer_freq": [1, 0, 1, 0]}, "mlp_only_layers", has_experts=True).args
    assert (args["mlp_only_layers"], args["decoder_sparse_step"]) == ([1, 3], 1)
    said = {"moe_layer_freq": [1, 0], "mlp_only_layers": [], "decoder_sparse_step": 2}
    assert words(said, "mlp_only_layers", has_experts=True).args["mlp_only_layers"] == []


@pytest.mark.parametrize(("said", "read"), [("1", 1), (" 2 ", 2), (1, 1), (None, None), ("[0]", "[0]")], ids=repr)
def test_number_of_layers_from_one_with_experts_to_the_next_is_read(said, read):
    args = words({"moe_layer_freq": said}, has_experts=True).args
    assert args == {"moe_layer_freq": read} | {"moe_intermediate_size": None}


@pytest.mark.parametrize("pattern", [[0, 1, 0, 1], [1, 0]], ids=str)
def test_dense_layers_behind_others_are_an_error_where_they_can_only_be_the_first(pattern):
    with pytest.raises(MscvtError, match=re.escape(f"(moe_layer_freq = {pattern})")):
        words({"moe_layer_freq": pattern}, "first_k_dense_replace", has_experts=True)


@pytest.mark.parametrize("fields", [(), ("first_k_dense_replace",), ("mlp_only_layers",)], ids=str)
def test_list_that_does_not_say_which_layers_have_experts_is_an_error(fields):
    with pytest.raises(MscvtError, match=r"moe_layer_freq = .*can't be understood"):
        words({"moe_layer_freq": [0, 2]}, *fields, has_experts=True)


def test_list_of_layers_with_experts_means_nothing_without_experts():
    assert sizes_of({**TRAINED, "moe_layer_freq": [0, 1, 0, 1, 0, 1]})["num_layers"] == 6
