"""What `args` record, and how they are read back, also where a training run wrote them in another way."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mscvt.dialects.args_read import absent_copies, read_hyperparameters, read_model_type
from mscvt.dialects.args_read import read_options as read_options_and_notes
from mscvt.dialects.mindspeed.args_written import make_args
from mscvt.dialects.options import Options
from mscvt.errors import MscvtError
from mscvt.model.family import DENSE, MODEL, Layer, ModelType
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
    "padded_vocab_size": 24,
    "tie_word_embeddings": False,
    "norm_epsilon": 1e-5,
    "rotary_base": 5e5,
    "seq_length": 64,
    "mtp_num_layers": 0,
}
LAYERS = [Layer(n, DENSE) for n in range(6)]
PLAIN = ModelType("small", ("small",))
MOE = ModelType(
    "small-moe",
    ("small",),
    {"num_experts": count("num_experts"), "moe_intermediate_size": count("moe_intermediate_size")},
    args=lambda h, layers: {"own": 3, "double": 2 * h["num_experts"], "kept": len(layers)},
)
NAMES = {
    "small": DECODER,
    "small-moe": {MODEL: DECODER[MODEL], "moe": {"moe.router_bias": "b", "attention.q_norm": "n"}},
}


def family(model_type=PLAIN):
    kind = ("moe",) if model_type is MOE else DENSE
    hooks = {
        "mscvt_names": lambda model_type, block, hyperparameters: NAMES[model_type].get(block),
        "mscvt_layers": lambda model_type, hyperparameters: [Layer(n, kind) for n in range(2)],
    }
    return Family(model_type, Plugin("mscvt-small", "1", "small = small"), hooks)


def read_options(args, asked):
    return read_options_and_notes(args, asked)[0]


def args_of(h=H, model_type=PLAIN, absent=(), **options):
    return make_args(family(model_type), h, with_defaults(Options(**options)), LAYERS, absent)


def sizes_of(args, configured=None, model_type=PLAIN, **options):
    asked = with_defaults(read_options(args, Options(**options)))
    return read_hyperparameters(args, family(model_type), asked, configured)


def test_sizes_are_recorded_under_the_names_of_training():
    args = args_of()
    expected = {
        "model_type_hf": "small",
        "num_layers": 6,
        "num_key_value_heads": 2,
        "num_query_groups": 2,
        "group_query_attention": True,
        "intermediate_size": 14,
        "ffn_hidden_size": 14,
        "kv_channels": 5,
        "untie_embeddings_and_output_weights": True,
        "add_position_embedding": True,
        "qk_layernorm": False,
        "padded_vocab_size": 24,
        "vocab_size": 22,
        "noop_layers": None,
        "schedules_method": None,
        "transformer_impl": "local",
    }
    assert {name: args[name] for name in expected} == expected
    assert "router_bias" not in args
    assert "multi_latent_attention" not in args
    assert "tie_word_embeddings" not in args


def test_heads_without_groups_and_tied_embeddings_are_recorded():
    args = args_of({**H, "num_query_groups": 4, "tie_word_embeddings": True})
    assert args["group_query_attention"] is False
    assert args["untie_embeddings_and_output_weights"] is False


def test_parts_of_the_model_are_recorded_where_it_has_them():
    args = args_of({**H, "num_experts": 8, "moe_intermediate_size": 6}, model_type=MOE)
    assert (args["router_bias"], args["qk_layernorm"], args["own"], args["double"]) == (True, True, 3, 16)
    assert (args["num_experts"], args["num_moe_experts"], args["moe_ffn_hidden_size"]) == (8, 8, 6)


def test_slots_and_virtual_stages_are_counted_with_noop_layers():
    args = args_of(noop_layers=(7, 0), target_pipeline_parallel_size=2, num_layers_per_virtual_pipeline_stage=1)
    assert (args["num_layers"], args["noop_layers"]) == (8, "7,0")
    assert (args["vpp_size"], args["num_layers_per_virtual_pipeline_stage"]) == (4, 1)


def test_resolved_expert_parallelism_is_recorded():
    assert args_of(target_tensor_parallel_size=4)["expert_tensor_parallel_size"] == 4


OPTIONS = st.builds(
    Options,
    target_tensor_parallel_size=st.integers(1, 8),
    target_pipeline_parallel_size=st.sampled_from([1, 2, 3]),
    target_expert_parallel_size=st.integers(1, 8),
    expert_tensor_parallel_size=st.none() | st.just(1),
    num_layers_per_virtual_pipeline_stage=st.none() | st.integers(1, 3),
    num_layer_list=st.none() | st.lists(st.integers(0, 5), min_size=1).map(tuple),
    noop_layers=st.none() | st.lists(st.integers(0, 9), unique=True).map(sorted).map(tuple),
    moe_grouped_gemm=st.none() | st.booleans(),
    moe_tp_extend_ep=st.none() | st.booleans(),
    mla_mm_split=st.none() | st.booleans(),
    mtp_num_layers=st.none() | st.integers(0, 3),
    schedules_method=st.none() | st.just("dualpipev"),
    transformer_impl=st.sampled_from([None, "local", "transformer_engine"]),
).filter(lambda options: not (options.moe_tp_extend_ep and options.expert_tensor_parallel_size == 1))
"""All options but those that contradict each other: experts that are spread whole can't be asked to be whole."""


@given(OPTIONS)
def test_options_are_read_back_as_they_were(options):
    filled = with_defaults(options)
    args = make_args(family(), H, filled, LAYERS, ())
    assert with_defaults(read_options(args, Options())) == filled
    assert with_defaults(read_options(args, options)) == filled, "what agrees with args may be asked for"
    assert read_model_type(args) == "small"


@pytest.mark.parametrize("value", ["1,5", "1, 5", [1, 5], (5, 1), {5, 1}, frozenset({1, 5}), ["1", "5"]], ids=repr)
def test_lists_are_read_in_any_form(value):
    assert read_options({"noop_layers": value}, Options()).noop_layers == (1, 5)


def test_spread_experts_are_whole_whatever_training_recorded():
    args = {"moe_tp_extend_ep": True, "expert_tensor_parallel_size": 1, "tensor_model_parallel_size": 2}
    options = with_defaults(read_options(args, Options()))
    assert (options.moe_tp_extend_ep, options.expert_tensor_parallel_size) == (True, 2)


def test_repeated_tensors_that_the_source_lacked_are_recorded_by_name():
    assert absent_copies(args_of(absent=["1.head", "0.embedding"])) == ("0.embedding", "1.head")
    assert absent_copies(args_of()) is None
    assert absent_copies(args_of(model_type=replace(PLAIN, repeats_ends=False))) == (), "where none is the exception"


@pytest.mark.parametrize("value", ["a", 3, None, {"a": 1}], ids=repr)
def test_repeated_tensors_are_not_known_where_something_else_is_recorded(value):
    assert absent_copies({"absent_mtp_copies": value}) is None


def test_layer_list_keeps_its_order():
    assert read_options({"num_layer_list": [5, 1]}, Options()).num_layer_list == (5, 1)


@pytest.mark.parametrize("value", ["", " ", [], (), set()], ids=repr)
def test_empty_lists_are_none(value):
    assert read_options({"noop_layers": value}, Options()).noop_layers == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("noop_layers", "a,b"),
        ("noop_layers", 1.5j),
        ("num_layer_list", [[1]]),
        ("tensor_model_parallel_size", "two"),
        ("pipeline_model_parallel_size", [2]),
        ("tensor_model_parallel_size", 0),
        ("mtp_num_layers", -1),
        ("schedules_method", "1f1b"),
    ],
    ids=repr,
)
def test_values_that_mean_nothing_are_an_error_that_names_them(name, value):
    with pytest.raises(MscvtError, match="the checkpoint's args record"):
        read_options({name: value}, Options())


def test_all_contradictions_are_shown_at_once():
    asked = Options(noop_layers=(1,), mtp_num_layers=0, moe_tp_extend_ep=True, num_layers=3)
    with pytest.raises(MscvtError) as caught:
        read_options({"noop_layers": "2", "mtp_num_layers": 1, "moe_tp_extend_ep": False, "num_layers": 5}, asked)
    assert len(caught.value.faults) == 4
    for flag in ("--noop-layers 1", "--mtp-num-layers 0", "--moe-tp-extend-ep", "--num-layers 3"):
        assert flag in str(caught.value)


def test_what_is_recorded_as_none_contradicts_what_is_asked_for():
    with pytest.raises(MscvtError, match="args record none"):
        read_options({"noop_layers": None}, Options(noop_layers=(1,)))
    assert read_options({}, Options(noop_layers=(1,))).noop_layers == (1,)


@given(st.booleans(), st.booleans(), st.sampled_from([1, 2, 4]), st.sampled_from([22, 24, 32]))
def test_sizes_are_read_back_as_they_were(tied, noop, groups, padded):
    h = {**H, "tie_word_embeddings": tied, "num_query_groups": groups, "padded_vocab_size": padded}
    args = args_of(h, noop_layers=(0, 7) if noop else None)
    assert sizes_of(args) == h
    assert sizes_of(args, {**H, **h}) == h


@pytest.mark.parametrize(
    ("said", "groups"),
    [
        ({"num_key_value_heads": 2}, 2),
        ({"group_query_attention": True, "num_query_groups": 2}, 2),
        ({"group_query_attention": False, "num_query_groups": 1}, 4),
        ({"group_query_attention": False, "num_query_groups": None}, 4),
        ({}, 4),
    ],
)
def test_groups_are_read_as_training_means_them(said, groups):
    args = {name: value for name, value in args_of().items() if "group" not in name and "key_value" not in name}
    assert sizes_of(args | said)["num_query_groups"] == groups


def test_vocabulary_without_its_real_size_needs_the_configuration():
    args = {**args_of(), "vocab_size": None}
    with pytest.raises(MscvtError, match="only its padded size") as caught:
        sizes_of(args)
    assert "--hf-cfg-dir" in caught.value.hint
    sizes = sizes_of(args, H)
    assert (sizes["vocab_size"], sizes["padded_vocab_size"]) == (22, 24)


def test_everything_missing_is_shown_at_once_and_taken_from_the_configuration():
    with pytest.raises(MscvtError) as caught:
        sizes_of({})
    for name in ("hidden_size", "ffn_hidden_size", "num_attention_heads", "num_layers", "vocab_size"):
        assert f"{name} is not recorded" in str(caught.value)
    assert sizes_of({}, {**H, "num_query_groups": 4})["hidden_size"] == 20


@pytest.mark.parametrize(("name", "value"), [("hidden_size", 24), ("kv_channels", 6), ("num_query_groups", 4)])
def test_configuration_that_contradicts_args_is_an_error(name, value):
    with pytest.raises(MscvtError, match=f"{name}: the checkpoint's args record {H[name]}, config.json says {value}"):
        sizes_of(args_of(), {**H, name: value})


def test_configuration_may_have_more_layers_but_not_fewer():
    assert sizes_of(args_of(), {**H, "num_layers": 8})["num_layers"] == 6
    with pytest.raises(MscvtError, match="num_layers"):
        sizes_of(args_of(), {**H, "num_layers": 5})
