"""What is refused on the way to Megatron: the message names the option, the values and the fix; nothing is written."""

import json
import shutil

import pytest

from command_line import SOURCES, check_refused, make_source
from mscvt.dialects.mindspeed.pipeline import topology
from mscvt.dialects.options import Options
from mscvt.errors import MscvtError
from mscvt.model.options import with_defaults

TP, PP, EP = "--target-tensor-parallel-size", "--target-pipeline-parallel-size", "--target-expert-parallel-size"
ETP, VPP = "--expert-tensor-parallel-size", "--num-layers-per-virtual-pipeline-stage"
LIST, NOOP, MTP = "--num-layer-list", "--noop-layers", "--mtp-num-layers"
GEMM, EXTEND, SPLIT = "--moe-grouped-gemm", "--moe-tp-extend-ep", "--mla-mm-split"
DUAL, IMPL = "--schedules-method", "--transformer-impl"
LAYERS, DENSE, VOCAB = "--num-layers", "--first-k-dense-replace", "--make-vocab-size-divisible-by"

TOPOLOGY = {
    "layers_not_divisible_by_pp": ("llama2", {}, [PP, "3"], ["8 layers", f"{PP} 3", f"Add 1 with {NOOP}", LIST]),
    "layers_and_noop_not_divisible_by_pp": (
        "qwen3",
        {},
        [PP, "4", NOOP, "0"],
        ["9 slots (8 layers and the noop layers)", f"{PP} 4", f"Add 3 more with {NOOP}"],
    ),
    "stage_not_divisible_by_vpp": ("llama2", {}, [PP, "2", VPP, "3"], ["4 layers a stage", f"{VPP} 3", "divisor of 4"]),
    "odd_stage_with_dualpipev": (
        "qwen3",
        {},
        [PP, "8", DUAL, "dualpipev"],
        [f"{DUAL} dualpipev", "even number of layers a stage, here 1", NOOP, PP],
    ),
    "vpp_and_dualpipev": (
        "qwen3",
        {},
        [PP, "2", VPP, "2", DUAL, "dualpipev"],
        [f"{VPP} 2", f"{DUAL} dualpipev", "Leave out one"],
    ),
    "list_too_short": ("qwen3", {}, [PP, "4", LIST, "4,4"], [f"{LIST} 4,4", "2 entries", f"{PP} is 4", "each stage"]),
    "list_too_long": ("qwen3", {}, [PP, "2", LIST, "3,3,2"], [f"{LIST} 3,3,2", "3 entries", f"{PP} is 2"]),
    "list_of_wrong_sum": ("qwen3", {}, [PP, "2", LIST, "4,5"], [f"{LIST} 4,5", "sums to 9", "8 layers", "hint: "]),
    "list_with_negative_entry": ("qwen3", {}, [PP, "2", LIST, "9,-1"], [f"{LIST} 9,-1", "negative"]),
    "list_and_vpp": ("qwen3", {}, [PP, "2", LIST, "4,4", VPP, "2"], [f"{LIST} 4,4", VPP, "Leave out one"]),
    "list_and_noop": ("qwen3", {}, [PP, "2", LIST, "5,4", NOOP, "0"], [f"{LIST} 5,4", NOOP, "Leave out one"]),
    "list_and_dualpipev": (
        "qwen3",
        {},
        [PP, "2", LIST, "4,4", DUAL, "dualpipev"],
        [f"{LIST} 4,4", DUAL, "Leave out one"],
    ),
    "noop_out_of_range": (
        "llama2",
        {},
        [NOOP, "3,10"],
        [f"{NOOP} 3,10", "10 is out of range", "10 slots (8 layers and 2 noop)", "0 to 9", "hint: "],
    ),
    "noop_negative": ("llama2", {}, [NOOP, "-1"], [f"{NOOP} -1", "out of range"]),
    "noop_repeated": ("llama2", {}, [PP, "2", NOOP, "8,8"], [f"{NOOP} 8,8", "8 given more than once", "hint: "]),
    "more_ranks_than_any_machine_has": (
        "qwen3-moe",
        {"num_key_value_heads": 2**30, "num_attention_heads": 2**30, "num_experts": 8},
        [TP, str(2**30)],
        [f"{TP} {2**30}", "ranks"],
    ),
}
SIZES = {
    "kv_groups_not_divisible_by_tp": (
        "llama2",
        {},
        [TP, "8"],
        ["4 kv groups (num_key_value_heads)", f"{TP} 8", "divides 4"],
    ),
    "heads_not_divisible_by_tp": (
        "deepseek3",
        {},
        [TP, "3"],
        ["8 attention heads (num_attention_heads)", f"{TP} 3", "divides 8"],
    ),
    "ffn_not_divisible_by_tp": (
        "qwen3",
        {"intermediate_size": 81},
        [TP, "2"],
        ["81 FFN rows (intermediate_size)", f"{TP} 2"],
    ),
    "expert_ffn_not_divisible_by_tp": (
        "qwen3-moe",
        {"moe_intermediate_size": 25},
        [TP, "2"],
        ["25 FFN rows of an expert (moe_intermediate_size)", f"{TP} 2"],
    ),
    "experts_not_divisible_by_ep": ("qwen3-moe", {}, [EP, "3"], ["8 experts", f"{EP} 3", "divides 8"]),
    "grouped_experts_not_divisible_by_ep": ("deepseek3", {}, [EP, "3", GEMM], ["8 experts", f"{EP} 3", "divides 8"]),
    "experts_not_divisible_by_extended_ep": (
        "qwen3-moe",
        {},
        [TP, "2", EP, "8", EXTEND],
        ["8 experts", "16 ranks", EXTEND, f"{EP} 8", f"{TP} 2"],
    ),
    "vocabulary_not_divisible_by_tp": (
        "qwen3",
        {"vocab_size": 97},
        [TP, "2"],
        ["97 vocabulary rows (vocab_size)", f"{TP} 2", f"{VOCAB} 1", "zero rows"],
    ),
    "etp_neither_1_nor_tp": ("qwen3-moe", {}, [TP, "4", ETP, "2"], [f"{ETP} 2", "1 or", f"{TP}, which is 4", "hint: "]),
    "etp_1_and_extended_ep": (
        "qwen3-moe",
        {},
        [TP, "2", EP, "2", ETP, "1", EXTEND],
        [f"{ETP} 1", EXTEND, "Leave out one"],
    ),
    "etp_1_with_tp_and_ep_that_do_not_divide": (
        "qwen3-moe",
        {"num_key_value_heads": 8},
        [TP, "4", EP, "6", ETP, "1"],
        [f"{ETP} 1", f"{TP} 4", f"{EP} 6", "multiple", "hint: "],
    ),
}
DEPTH = {
    "more_layers_than_the_model": ("qwen3", {}, [LAYERS, "9"], [f"{LAYERS} 9", "has 8 layers", "hint: "]),
    "more_dense_layers_than_the_model": (
        "deepseek3",
        {},
        [LAYERS, "4", DENSE, "4"],
        [f"{DENSE} 4", "3 leading dense layers", "hint: "],
    ),
    "dense_layers_left_out_without_num_layers": ("deepseek3", {}, [DENSE, "1"], [f"{DENSE} 1", LAYERS, "at most 6"]),
    "more_layers_than_dense_ones_left_out_leave": (
        "deepseek3",
        {},
        [LAYERS, "7", DENSE, "1"],
        [f"{LAYERS} 7", f"{DENSE} 1", "has 6 layers"],
    ),
    "more_mtp_than_the_model": ("deepseek3", {}, [MTP, "2"], [f"{MTP} 2", "1 MTP layers", "hint: "]),
    "mtp_of_a_model_saved_without": (
        "deepseek3",
        {"num_nextn_predict_layers": None},
        [MTP, "1"],
        [f"{MTP} 1", "0 MTP layers"],
    ),
    "transformer_engine_and_mtp": (
        "deepseek3",
        {},
        [MTP, "1", IMPL, "transformer_engine"],
        [f"{MTP} 1", f"{IMPL} transformer_engine", "Leave out one"],
    ),
}
VALUES = {
    f"{flag[2:]}_{value}": (family, {}, [flag, value], [f"{flag} {value}", "at least"])
    for family, flag, value in (
        ("llama2", TP, "0"),
        ("llama2", PP, "-2"),
        ("qwen3-moe", EP, "0"),
        ("qwen3-moe", ETP, "0"),
        ("llama2", VPP, "0"),
        ("llama2", LAYERS, "0"),
        ("deepseek3", MTP, "-1"),
        ("deepseek3", DENSE, "-1"),
        ("llama2", VOCAB, "0"),
    )
} | {
    "schedules_method_unknown": ("llama2", {}, [DUAL, "1f1b"], [f"{DUAL} 1f1b", "dualpipev"]),
    "transformer_impl_unknown": ("llama2", {}, [IMPL, "te"], [f"{IMPL} te", "local, transformer_engine"]),
}
_NO_EXPERTS, _NO_LATENT, _NO_MTP = "no experts", "no multi-head latent attention", "no multi-token prediction"
FEATURES = {
    f"{family}_has_no_{flag[2:]}": (
        family,
        {},
        [flag, *values],
        [" ".join([flag, *values]), f"{family} models have {what}", f"Leave out {flag}."],
    )
    for families, what, options in (
        (("llama2", "qwen3"), _NO_EXPERTS, ([EP, "2"], [ETP, "2"], [GEMM], [EXTEND], [DENSE, "1"])),
        (("llama2", "qwen3", "qwen3-moe"), _NO_LATENT, ([SPLIT],)),
        (("llama2", "qwen3", "qwen3-moe", "deepseek2", "deepseek2-lite"), _NO_MTP, ([MTP, "1"],)),
    )
    for family in families
    for flag, *values in options
}
TABLE = TOPOLOGY | SIZES | DEPTH | VALUES | FEATURES


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    return {model_type: make_source(model_type, root / model_type) for model_type in SOURCES}


def with_config(source, changes, folder):
    """The same weights beside a changed config.json; None takes a field out."""
    if not changes:
        return source
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


@pytest.mark.parametrize("name", TABLE)
def test_conversion_is_refused_with_option_values_and_fix(name, sources, tmp_path):
    family, changes, options, fragments = TABLE[name]
    source = with_config(sources[family], changes, tmp_path / "hf")
    said = check_refused("hf2mg", source, tmp_path / "mg", ["--model-type-hf", family, *options], fragments)
    assert "hint: " in said


def test_every_refusal_of_the_same_step_is_listed_at_once(sources, tmp_path):
    options = [TP, "3", EP, "5", "--model-type-hf", "qwen3-moe"]
    fragments = ["4 kv groups", f"{TP} 3", "8 experts", f"{EP} 5", "faults"]
    check_refused("hf2mg", sources["qwen3-moe"], tmp_path / "mg", options, fragments)
    options = [PP, "2", LIST, "3,3,3", VPP, "2", "--model-type-hf", "llama2"]
    check_refused("hf2mg", sources["llama2"], tmp_path / "mg", options, ["3 entries", "sums to 9", VPP])


def test_noop_that_covers_all_slots_is_refused():
    # No configuration has 0 layers, so that only the topology itself can be asked.
    with pytest.raises(MscvtError) as caught:
        topology(with_defaults(Options(noop_layers=(0, 1))), 0)
    assert f"{NOOP} 0,1: covers all 2 slots" in str(caught.value)
    assert caught.value.hint


def test_original_command_line_is_refused_in_the_same_words(sources, tmp_path):
    options = ["--load-model-type", "hf", "--save-model-type", "mg", PP, "3"]
    check_refused("convert", sources["llama2"], tmp_path / "mg", options, ["8 layers", f"{PP} 3", NOOP])
