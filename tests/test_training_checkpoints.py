"""The way back from checkpoints as a training run saves them: more than weights, other names, other iterations."""

import enum
import io
import random
import shutil
import sys
import types
from argparse import Namespace

import numpy as np
import pytest
import torch

from mscvt.dialects.options import Options
from mscvt.errors import MscvtError
from small_configurations import DEEPSEEK, LLAMA, MIXTURE, QWEN
from trained_checkpoint import EP, PP, TP, Run, forget, nothing


@pytest.fixture
def make(tmp_path):
    return lambda model_type, config, **options: Run(tmp_path, model_type, config, options)


def test_iteration_is_the_one_that_the_tracker_names(make):
    run = make("llama2", LLAMA, **{TP: 2})
    shutil.copytree(run.mg / "iter_0000001", run.mg / "iter_0000500")
    for path in (run.mg / "iter_0000001").rglob("*.pt"):
        path.write_bytes(b"of an earlier time")
    (run.mg / "latest_checkpointed_iteration.txt").write_text("500\n")
    run.assert_returns_source()


def test_iteration_is_the_one_asked_for_whatever_the_tracker_says(make):
    run = make("llama2", LLAMA, **{TP: 2})
    (run.mg / "iter_0000001").rename(run.mg / "iter_0000500")
    (run.mg / "latest_checkpointed_iteration.txt").write_text("700")
    with pytest.raises(MscvtError, match="iter_0000700") as caught:
        run.convert()
    assert "iter_0000500" in str(caught.value)
    run.assert_returns_source(iteration=500)


def test_release_is_read_where_the_tracker_says_so(make):
    run = make("llama2", LLAMA)
    (run.mg / "iter_0000001").rename(run.mg / "release")
    (run.mg / "latest_checkpointed_iteration.txt").write_text("release")
    run.assert_returns_source()


def test_optimizer_and_random_state_are_ignored(make, monkeypatch):
    run = make("qwen3-moe", MIXTURE, **{TP: 2, EP: 2})
    library = types.ModuleType("megatron.core.transformer.enums")
    library.AttnBackend = enum.Enum("AttnBackend", {"flash": 1, "auto": 5}, module=library.__name__)

    def train(state):
        state["iteration"] = 1234
        state["num_floating_point_operations_so_far"] = 5.5e20
        state["optimizer"] = {
            "state": {0: {"exp_avg": torch.ones(3, 5), "step": torch.tensor(7.0)}},
            "param_groups": [],
        }
        state["opt_param_scheduler"] = {"max_lr": 1e-5, "lr_decay_style": "cosine"}
        state["rng_state"] = [
            {
                "random_rng_state": random.getstate(),
                "np_rng_state": np.random.RandomState(3).get_state(),
                "torch_rng_state": torch.get_rng_state(),
                "rng_tracker_states": {"model-parallel-rng": torch.get_rng_state()},
            }
        ]
        state["model"] = {"decoder.layers.0._extra_state": torch.empty(0, dtype=torch.uint8), **state["model"]}

    with monkeypatch.context() as patched:
        for name in ("megatron", "megatron.core", "megatron.core.transformer"):
            patched.setitem(sys.modules, name, types.ModuleType(name))
        patched.setitem(sys.modules, library.__name__, library)
        run.edit(train, attention_backend=library.AttnBackend.auto, params_dtype=torch.bfloat16, iteration=1234)
    for path in run.shards:
        (path.parent / "distrib_optim.pt").write_bytes(b"of the optimizer")
    run.assert_returns_source()


@pytest.mark.parametrize(
    "value", [None, io.BytesIO(b"scales"), torch.ones(9, dtype=torch.uint8)], ids=["none", "bytes", "tensor"]
)
def test_extra_state_is_ignored(make, value):
    run = make("llama2", LLAMA, **{PP: 2})

    def add(state):
        state["model"]["decoder.layers.0.self_attention.linear_qkv._extra_state"] = value
        state["model"]["decoder.layers.1.mlp.linear_fc1._extra_state"] = value

    run.edit(add)
    run.assert_returns_source()


def test_groups_are_read_from_num_query_groups(make):
    run = make("llama2", LLAMA, **{TP: 2})
    run.edit(forget("num_key_value_heads"), num_query_groups=2, group_query_attention=True)
    run.assert_returns_source()


@pytest.mark.parametrize("groups", [1, None])
@pytest.mark.parametrize("model_type", ["llama2", "qwen3"])
def test_every_head_is_a_group_where_group_query_attention_is_false(make, model_type, groups):
    config = {**(LLAMA if model_type == "llama2" else QWEN), "num_key_value_heads": 4}
    run = make(model_type, config, **{TP: 2})
    run.edit(forget("num_key_value_heads"), num_query_groups=groups, group_query_attention=False)
    run.assert_returns_source()


def test_every_head_is_a_group_where_nothing_is_recorded(make):
    run = make("llama2", {name: value for name, value in LLAMA.items() if name != "num_key_value_heads"}, **{TP: 2})
    run.edit(forget("num_key_value_heads", "num_query_groups", "group_query_attention"))
    run.assert_returns_source()


@pytest.mark.parametrize("value", [{5, 0}, [0, 5], (5, 0), "0,5", "5, 0"], ids=repr)
def test_noop_layers_are_read_in_any_form(make, value):
    run = make("qwen3", QWEN, **{PP: 2}, noop_layers=(0, 5))
    run.edit(nothing, noop_layers=value)
    run.assert_returns_source()


@pytest.mark.parametrize("value", ["", [], (), set(), None], ids=repr)
@pytest.mark.parametrize("name", ["noop_layers", "num_layer_list"])
def test_lists_without_entries_mean_that_the_option_was_not_used(make, name, value):
    run = make("qwen3", QWEN, **{PP: 2})
    run.edit(nothing, **{name: value})
    run.assert_returns_source()


@pytest.mark.parametrize("asked", [None, (5, 0)])
def test_noop_layers_may_be_asked_for_in_any_order(make, asked):
    run = make("qwen3", QWEN, **{PP: 2}, noop_layers=(0, 5))
    run.edit(nothing, noop_layers={0, 5})
    run.assert_returns_source(asked=Options(noop_layers=asked))


@pytest.mark.parametrize("value", ["3,1", [3, 1], (3, 1)], ids=repr)
def test_layer_list_is_read_in_any_form(make, value):
    run = make("qwen3", QWEN, **{PP: 2}, num_layer_list=(3, 1))
    run.edit(nothing, num_layer_list=value)
    run.assert_returns_source()


def test_vocabulary_is_trimmed_to_what_args_record(make):
    run = make("llama2", {**LLAMA, "vocab_size": 23}, **{TP: 2}, make_vocab_size_divisible_by=16)
    run.edit(lambda state: state["model"]["output_layer.weight"].add_(1))  # training changes padding rows too
    run.source["lm_head.weight"] = run.source["lm_head.weight"] + 1
    run.assert_returns_source()


def test_vocabulary_is_trimmed_to_config_where_args_record_none(make):
    run = make("llama2", {**LLAMA, "vocab_size": 23}, **{TP: 2}, make_vocab_size_divisible_by=16)
    run.edit(nothing, vocab_size=None, padded_vocab_size=32)
    with pytest.raises(MscvtError, match="only its padded size") as caught:
        run.convert()
    assert "--hf-cfg-dir" in caught.value.hint
    run.assert_returns_source(hf_cfg_dir=run.hf)


MEGATRON_ARGS = (
    *("tensor_model_parallel_size", "pipeline_model_parallel_size", "expert_model_parallel_size"),
    *("expert_tensor_parallel_size", "num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads"),
    *("group_query_attention", "num_query_groups", "kv_channels", "padded_vocab_size", "vocab_size", "norm_epsilon"),
    *("untie_embeddings_and_output_weights", "rotary_base", "seq_length", "num_experts", "moe_grouped_gemm"),
    *("transformer_impl", "q_lora_rank", "kv_lora_rank", "qk_head_dim", "qk_pos_emb_head_dim", "v_head_dim"),
    *("multi_latent_attention", "mtp_num_layers", "num_layers_per_virtual_pipeline_stage"),
)
"""What megatron-core's own arguments hold, of all that a checkpoint needs."""


def only_megatron(state):
    kept = {name: value for name, value in vars(state["args"]).items() if name in MEGATRON_ARGS}
    if hasattr(state["args"], "moe_intermediate_size"):
        kept["moe_ffn_hidden_size"] = state["args"].moe_intermediate_size
    state["args"] = Namespace(**kept)


@pytest.mark.parametrize(
    ("model_type", "config"),
    [("llama2", LLAMA), ("qwen3", QWEN), ("qwen3-moe", MIXTURE)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_args_of_megatron_alone_are_enough_with_the_model_type(make, model_type, config):
    run = make(model_type, config, **{TP: 2, PP: 2})
    run.edit(only_megatron)
    with pytest.raises(MscvtError, match="what model it is"):
        run.convert()
    run.assert_returns_source(model_type=model_type)


@pytest.mark.parametrize(
    ("model_type", "config"), [("qwen3-moe", MIXTURE), ("deepseek3", DEEPSEEK)], ids=["qwen3-moe", "deepseek3"]
)
def test_args_of_megatron_alone_are_enough_with_the_configuration(make, model_type, config):
    options = {TP: 2, PP: 2, EP: 2, "moe_grouped_gemm": True}
    run = make(model_type, config, **options, **({"mtp_num_layers": 1} if model_type == "deepseek3" else {}))
    run.edit(only_megatron)
    run.assert_returns_source(hf_cfg_dir=run.hf)


@pytest.mark.parametrize("saved", ["model", "model0"])
def test_single_virtual_stage_is_read_under_either_name(make, saved):
    run = make("qwen3", QWEN, **{PP: 2}, num_layers_per_virtual_pipeline_stage=2)

    def rename(state):
        state[saved] = state.pop("model0")

    run.edit(rename)
    run.assert_returns_source()


def test_stage_without_virtual_ones_is_read_as_model0_too(make):
    run = make("qwen3", QWEN, **{PP: 2})

    def rename(state):
        state["model0"] = state.pop("model")

    run.edit(rename)
    run.assert_returns_source()
