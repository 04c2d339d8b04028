"""Which rank's files the way back needs, and what it makes of others; the configuration beside the result."""

import json
import shutil
from argparse import Namespace

import pytest
import torch

from mscvt.dialects.options import Options
from mscvt.errors import MscvtError
from reference_converter import expected_return
from small_configurations import DEEPSEEK, LLAMA, MIXTURE, QWEN
from test_properties import assert_same, read_huggingface
from trained_checkpoint import EP, PP, TP, Run, nothing


@pytest.fixture
def make(tmp_path):
    return lambda model_type, config, **options: Run(tmp_path, model_type, config, options)


@pytest.mark.parametrize(("tensor", "expert"), [(2, 4), (4, 2), (2, 2)])
def test_ranks_that_only_training_writes_are_passed_over_with_whole_experts(make, tensor, expert):
    config = {**MIXTURE, "num_key_value_heads": 4, "intermediate_size": 16, "vocab_size": 24}
    run = make("qwen3-moe", config, **{TP: tensor, EP: expert}, expert_tensor_parallel_size=1, moe_grouped_gemm=True)
    folder = run.mg / "iter_0000001"
    written = {path.parent.name for path in run.shards}
    for t in range(tensor):
        for e in range(expert):
            name = f"mp_rank_{t:02d}_{e:03d}"
            if name not in written:
                shutil.copytree(folder / min(written), folder / name)
    assert len(run.shards) == tensor * expert > len(written)
    run.assert_returns_source()


def test_missing_ranks_are_all_named(make):
    run = make("qwen3", QWEN, **{TP: 2, PP: 2})
    for name in ("mp_rank_00_001", "mp_rank_01_000"):
        shutil.rmtree(run.mg / "iter_0000001" / name)
    with pytest.raises(MscvtError) as caught:
        run.convert()
    assert "mp_rank_00_001, mp_rank_01_000" in str(caught.value)
    assert not run.back.exists()


def test_first_rank_may_be_the_missing_one(make):
    run = make("qwen3", QWEN, **{TP: 2})
    shutil.rmtree(run.mg / "iter_0000001" / "mp_rank_00")
    with pytest.raises(MscvtError, match="mp_rank_00"):
        run.convert()


def test_rank_of_another_topology_is_an_error(make):
    run = make("qwen3", QWEN, **{TP: 2})
    folder = run.mg / "iter_0000001"
    shutil.copytree(folder / "mp_rank_01", folder / "mp_rank_02")
    with pytest.raises(MscvtError, match="mp_rank_02"):
        run.convert()


def test_tensor_missing_or_foreign_in_one_rank_is_named_with_its_rank(make):
    run = make("llama2", LLAMA, **{TP: 2})
    path = run.shards[1]
    with torch.serialization.safe_globals([Namespace]):
        state = torch.load(path, weights_only=True)
    state["model"]["lora.weight"] = state["model"].pop("decoder.layers.2.mlp.linear_fc2.weight")
    torch.save(state, path)
    with pytest.raises(MscvtError) as caught:
        run.convert()
    assert len(caught.value.faults) == 2
    assert "missing: decoder.layers.2.mlp.linear_fc2.weight (model of rank tp 1, pp 0, ep 0)" in str(caught.value)
    assert "lora.weight (model of rank tp 1, pp 0, ep 0)" in str(caught.value)


@pytest.mark.parametrize("key", ["decoder.final_layernorm.weight", "decoder.layers.2.input_layernorm.weight"])
def test_replicas_that_differ_are_refused_by_name_unless_the_first_is_wanted(make, key):
    run = make("llama2", LLAMA, **{TP: 2})
    path = run.shards[1]
    with torch.serialization.safe_globals([Namespace]):
        state = torch.load(path, weights_only=True)
    state["model"][key] += 1
    torch.save(state, path)
    with pytest.raises(MscvtError) as caught:
        run.convert()
    assert f"{key} (model of rank tp 1, pp 0, ep 0) differs from {key} (model of rank tp 0" in str(caught.value)
    assert "--replicas first" in str(caught.value.hint)
    assert not run.back.exists()
    run.assert_returns_source(replicas="first")


def test_configuration_and_tokenizer_are_copied_without_weights(make):
    run = make("qwen3", QWEN, **{PP: 2})
    for name in ("tokenizer.json", "tokenizer.model", "merges.txt", "chat_template.jinja", "modeling_own.py"):
        (run.hf / name).write_text(f"of {name}")
    (run.hf / "pytorch_model.bin.index.json").write_text("{}")
    (run.hf / "consolidated.pth").write_text("weights")
    (run.hf / "more").mkdir()
    run.assert_returns_source(hf_cfg_dir=run.hf)
    assert sorted(path.name for path in run.back.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "merges.txt",
        "model.safetensors",
        "modeling_own.py",
        "tokenizer.json",
        "tokenizer.model",
    ]
    assert (run.back / "config.json").read_bytes() == (run.hf / "config.json").read_bytes()
    assert (run.back / "merges.txt").read_text() == "of merges.txt"


def test_reduced_layers_adapt_the_configuration(make):
    config = {**DEEPSEEK, "first_k_dense_replace": 2, "num_nextn_predict_layers": 2}
    options = {"num_layers": 3, "first_k_dense_replace": 1, "mtp_num_layers": 1}
    run = make("deepseek3", config, **options)
    run.assert_returns_source(hf_cfg_dir=run.hf)
    adapted = {"num_hidden_layers": 3, "first_k_dense_replace": 1, "num_nextn_predict_layers": 1}
    assert json.loads((run.back / "config.json").read_text()) == {**config, **adapted}
    assert json.loads((run.hf / "config.json").read_text()) == config


def test_dtype_of_the_result_is_written_into_the_configuration(make):
    run = make("llama2", {**LLAMA, "torch_dtype": "bfloat16", "quantization_config": {"quant_method": "fp8"}})
    run.case.back_dtype = "fp32"
    run.convert(hf_cfg_dir=run.hf, dtype="fp32")
    assert_same(read_huggingface(run.back), expected_return(run.case, run.source))
    assert json.loads((run.back / "config.json").read_text()) == {**LLAMA, "torch_dtype": "float32"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", 24),
        ("num_key_value_heads", 4),
        ("intermediate_size", 16),
        ("head_dim", 7),
        ("num_hidden_layers", 3),
        ("vocab_size", 23),
    ],
)
def test_configuration_of_another_model_is_an_error(make, name, value):
    run = make("qwen3", QWEN, **{PP: 2})
    (run.hf / "config.json").write_text(json.dumps({**QWEN, name: value}))
    with pytest.raises(MscvtError) as caught:
        run.convert(hf_cfg_dir=run.hf)
    assert str(value) in str(caught.value)
    assert not run.back.exists()


@pytest.mark.parametrize(
    ("asked", "flag"),
    [
        ({"noop_layers": (1,)}, "--noop-layers 1"),
        ({"num_layer_list": (1, 3)}, "--num-layer-list 1,3"),
        ({"moe_tp_extend_ep": True}, "--moe-tp-extend-ep"),
        ({"moe_grouped_gemm": False}, "--moe-grouped-gemm"),
        ({"mla_mm_split": True}, "--mla-mm-split"),
        ({"mtp_num_layers": 0}, "--mtp-num-layers 0"),
        ({"target_pipeline_parallel_size": 4}, "--target-pipeline-parallel-size 4"),
        ({"expert_tensor_parallel_size": 1}, "--expert-tensor-parallel-size 1"),
        ({"num_layers_per_virtual_pipeline_stage": 1}, "--num-layers-per-virtual-pipeline-stage 1"),
        ({"schedules_method": "dualpipev"}, "--schedules-method dualpipev"),
        ({"transformer_impl": "transformer_engine"}, "--transformer-impl transformer_engine"),
        ({"num_layers": 3}, "--num-layers 3"),
    ],
)
def test_options_that_contradict_args_are_named(make, asked, flag):
    run = make("deepseek3", DEEPSEEK, **{TP: 2, PP: 2, EP: 2}, moe_grouped_gemm=True, mtp_num_layers=1)
    run.edit(nothing)
    with pytest.raises(MscvtError) as caught:
        run.convert(asked=Options(**asked))
    assert flag in str(caught.value)
    assert not run.back.exists()
