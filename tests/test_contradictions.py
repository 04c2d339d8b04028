"""What is refused on the way to Hugging Face: options that contradict what the checkpoint's args record."""

import argparse

import pytest
import torch

from command_line import check_refused, make_source, run_main
from golden_cases import huggingface_digests

TP, PP, EP = "--target-tensor-parallel-size", "--target-pipeline-parallel-size", "--target-expert-parallel-size"
GEMM = "--moe-grouped-gemm"

DEEP = [TP, "2", PP, "2", EP, "2", GEMM, "--mtp-num-layers", "1", "--noop-layers", "8,9", "--num-layers", "8"]
WHOLE = [TP, "2", PP, "2", EP, "2", "--expert-tensor-parallel-size", "1"]
CHECKPOINTS = {
    "grouped": ("deepseek3", DEEP),
    "split": ("deepseek3", [TP, "2", "--mla-mm-split", "--moe-tp-extend-ep"]),
    "whole": ("qwen3-moe", WHOLE),
    "virtual": ("qwen3", [PP, "2", "--num-layers-per-virtual-pipeline-stage", "2"]),
    "listed": ("qwen3", [PP, "2", "--num-layer-list", "5,3"]),
    "dual": ("qwen3", [PP, "2", "--schedules-method", "dualpipev"]),
    "fused": ("llama2", ["--transformer-impl", "transformer_engine"]),
}
TABLE = {
    f"{name}_with_{'_'.join(options)[2:]}": (name, options, recorded)
    for name, options, recorded in (
        ("grouped", [TP, "4"], "2"),
        ("grouped", [PP, "4"], "2"),
        ("grouped", [EP, "4"], "2"),
        ("grouped", ["--noop-layers", "8"], "8,9"),
        ("grouped", ["--noop-layers", "0,1"], "8,9"),
        ("grouped", ["--mtp-num-layers", "2"], "1"),
        ("grouped", ["--mtp-num-layers", "0"], "1"),
        ("grouped", ["--expert-tensor-parallel-size", "1"], "2"),
        ("grouped", ["--moe-tp-extend-ep"], "False"),
        ("grouped", ["--mla-mm-split"], "False"),
        ("grouped", ["--num-layers-per-virtual-pipeline-stage", "2"], "none"),
        ("grouped", ["--num-layer-list", "5,5"], "none"),
        ("grouped", ["--schedules-method", "dualpipev"], "none"),
        ("grouped", ["--transformer-impl", "transformer_engine"], "local"),
        ("grouped", ["--model-type-hf", "deepseek32"], "deepseek3"),
        ("split", [GEMM], "False"),
        ("split", ["--mtp-num-layers", "1"], "0"),
        ("split", ["--noop-layers", "8,9"], "none"),
        ("whole", ["--expert-tensor-parallel-size", "2"], "1"),
        ("whole", [GEMM], "False"),
        ("virtual", ["--num-layers-per-virtual-pipeline-stage", "1"], "2"),
        ("virtual", ["--num-layer-list", "4,4"], "none"),
        ("listed", ["--num-layer-list", "4,4"], "5,3"),
        ("dual", ["--num-layers-per-virtual-pipeline-stage", "2"], "none"),
        ("fused", ["--transformer-impl", "local"], "transformer_engine"),
    )
}
RECORDED = {
    "noop_covers_all_slots": ({"noop_layers": "0,1", "num_layers": 2}, ["--noop-layers 0,1", "covers all 2 slots"]),
    "noop_out_of_range": ({"noop_layers": "99"}, ["--noop-layers 99", "out of range"]),
    "noop_is_no_list": ({"noop_layers": "x,y"}, ["noop_layers = 'x,y'"]),
    "virtual_stage_negative": ({"num_layers_per_virtual_pipeline_stage": -1}, ["stage -1", "at least 1"]),
    "pp_too_large": ({"pipeline_model_parallel_size": 10**12}, ["8 layers", f"{PP} {10**12}"]),
    "tp_is_a_fraction": ({"tensor_model_parallel_size": 1.5}, ["tensor_model_parallel_size = 1.5"]),
    "tp_is_a_tensor": ({"tensor_model_parallel_size": torch.ones(1)}, ["tensor_model_parallel_size = StoredTensor"]),
    "layers_are_text": ({"num_layers": "many"}, ["num_hidden_layers is 'many'"]),
    "layers_too_many": ({"num_layers": 10**12}, [f"num_hidden_layers is {10**12}"]),
    "layers_missing": ({"num_layers": None}, ["num_layers is not recorded", "--hf-cfg-dir"]),
    "hidden_size_is_a_tensor": ({"hidden_size": torch.ones(2)}, ["hidden_size is StoredTensor"]),
    "heads_are_a_list": ({"num_attention_heads": [8]}, ["num_attention_heads is list"]),
    "heads_are_zero": ({"num_attention_heads": 0}, ["num_attention_heads is 0"]),
    "groups_missing": (
        {"num_key_value_heads": None, "num_query_groups": None, "num_attention_heads": 7, "kv_channels": None},
        ["hidden size 48 doesn't divide into 7 heads"],
    ),
    "vocabulary_is_text": ({"padded_vocab_size": "96"}, ["padded_vocab_size '96'"]),
    "vocabulary_larger_than_padded": ({"vocab_size": 97}, ["97", "padded_vocab_size 96"]),
    "untied_is_a_tensor": (
        {"untie_embeddings_and_output_weights": torch.ones(2)},
        ["untie_embeddings_and_output_weights is StoredTensor"],
    ),
    "schedule_unknown": ({"schedules_method": "1f1b"}, ["--schedules-method 1f1b", "dualpipev"]),
    "implementation_is_a_number": ({"transformer_impl": 3}, ["transformer_impl = 3"]),
    "model_type_unknown": ({"model_type_hf": "gpt9"}, ["unknown model type 'gpt9'"]),
    "model_type_is_no_text": ({"model_type_hf": 3}, ["doesn't say what model it is", "--model-type-hf"]),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    for name, (model_type, options) in CHECKPOINTS.items():
        if not (root / model_type).exists():
            make_source(model_type, root / model_type)
        outcome = run_main("hf2mg", "--load-dir", root / model_type, "--save-dir", root / name, *options)
        assert outcome.code == 0, outcome.err
    return root


@pytest.mark.parametrize("name", TABLE)
def test_contradiction_of_recorded_args_is_refused(name, checkpoints, tmp_path):
    checkpoint, options, recorded = TABLE[name]
    fragments = [" ".join(options), "contradict", f"args record {recorded}", "hint: Leave the option out"]
    check_refused("mg2hf", checkpoints / checkpoint, tmp_path / "hf", options, fragments)


def test_every_contradiction_is_listed_at_once(checkpoints, tmp_path):
    options = [TP, "4", "--noop-layers", "1", "--mla-mm-split"]
    check_refused("mg2hf", checkpoints / "grouped", tmp_path / "hf", options, ["3 faults", *options])


TO_HUGGING_FACE = ["--load-model-type", "mg", "--save-model-type", "hf"]


@pytest.mark.parametrize("option", [["--num-layers", "4"], ["--first-k-dense-replace", "2"]])
def test_other_layers_than_recorded_are_refused_towards_huggingface(option, checkpoints, tmp_path):
    fragments = [" ".join(option), "is not what the checkpoint's args record", f"hint: Leave out {option[0]}"]
    check_refused("convert", checkpoints / "grouped", tmp_path / "hf", [*TO_HUGGING_FACE, *option], fragments)


def test_recorded_layers_may_be_repeated_towards_huggingface(checkpoints, tmp_path):
    layers = ["--num-layers", "8"]
    given = ["--load-dir", checkpoints / "grouped", "--save-dir", tmp_path / "hf"]
    outcome = run_main("convert", *given, *TO_HUGGING_FACE, *layers)
    assert outcome.code == 0, outcome.err


def test_what_args_record_may_be_repeated(checkpoints, tmp_path):
    for number, options in enumerate(([], [GEMM, "--noop-layers", "8,9", TP, "2"], [TP, "1", PP, "1", EP, "1"])):
        outcome = run_main(
            "mg2hf", "--load-dir", checkpoints / "grouped", "--save-dir", tmp_path / str(number), *options
        )
        assert outcome.code == 0, outcome.err
    first, *others = (huggingface_digests(tmp_path / str(number)) for number in range(3))
    assert others == [first, first]


@pytest.mark.parametrize("name", RECORDED)
def test_impossible_args_are_refused(name, tmp_path, checkpoints):
    changes, fragments = RECORDED[name]
    shard = checkpoints / "virtual" / "iter_0000001" / "mp_rank_00_000" / "model_optim_rng.pt"
    with torch.serialization.safe_globals([argparse.Namespace]):
        state = torch.load(shard, weights_only=True)
    vars(state["args"]).update({"num_layers_per_virtual_pipeline_stage": None} | changes)
    folder = tmp_path / "mg" / "iter_0000001" / "mp_rank_00_000"
    folder.mkdir(parents=True)
    torch.save(state, folder / "model_optim_rng.pt")
    (tmp_path / "mg" / "latest_checkpointed_iteration.txt").write_text("1")
    check_refused("mg2hf", tmp_path / "mg", tmp_path / "hf", [], fragments)
