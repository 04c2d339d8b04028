"""Ling 2.0 and Ring 2.0: the contract, how queries, keys and values are packed, and what training is told."""

import pytest
import torch

from mscvt import MscvtError
from mscvt.testing import (
    FamilyContract,
    Options,
    content,
    hf2mg,
    load_registry,
    save_huggingface,
    shards_in,
    source_tensors,
)

CONFIG = {
    "architectures": ["BailingMoeV2ForCausalLM"],
    "model_type": "bailing_moe",
    "dtype": "bfloat16",
    "num_hidden_layers": 4,
    "num_nextn_predict_layers": 2,
    "hidden_size": 40,
    "intermediate_size": 56,
    "moe_intermediate_size": 14,
    "num_experts": 8,
    "num_shared_experts": 3,
    "num_experts_per_tok": 2,
    "n_group": 4,
    "topk_group": 2,
    "first_k_dense_replace": 1,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 6,
    "partial_rotary_factor": 0.5,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
FAMILY = "bailing_mini"


class TestBailing(FamilyContract):
    model_type = FAMILY
    config = CONFIG


class TestBailingWithMoreDenseLayers(TestBailing):
    config = {**CONFIG, "first_k_dense_replace": 3, "num_nextn_predict_layers": 0}
    cases = ("tp2_ep2_extended_grouped", "three_layers")


def save(folder, config=CONFIG, changes=None):
    tensors = source_tensors(load_registry().family(FAMILY), config) | (changes or {})
    save_huggingface(folder, config, tensors)
    return tensors


def test_packed_projection_is_regrouped_by_kv_groups(tmp_path):
    tensors = save(tmp_path / "hf")
    hf2mg(tmp_path / "hf", tmp_path / "mg", Options(target_tensor_parallel_size=2))
    packed = tensors["model.layers.0.attention.query_key_value.weight"]
    heads, groups = packed[: 12 * 6].split(6), packed[12 * 6 :].split(6)
    rows = [(*heads[3 * g : 3 * g + 3], groups[g], groups[4 + g]) for g in range(4)]
    for rank, (first, second) in {"mp_rank_00": rows[:2], "mp_rank_01": rows[2:]}.items():
        found = shards_in(tmp_path / "mg")[rank]["model"]["decoder.layers.0.self_attention.linear_qkv.weight"]
        assert torch.equal(found, torch.cat([*first, *second]))


def test_first_generation_is_not_claimed():
    with pytest.raises(MscvtError, match="no installed plugin claims"):
        load_registry().recognise({**CONFIG, "architectures": ["BailingMoeForCausalLM"]})


def test_biases_are_refused_by_name(tmp_path):
    name = "model.layers.1.attention.query_key_value.bias"
    save(tmp_path / "hf", changes={name: content(name, (120,))})
    with pytest.raises(MscvtError, match=f"no rule takes: {name}$"):
        hf2mg(tmp_path / "hf", tmp_path / "mg")


ROTATION = {
    "factor": ({}, "--rotary-percent 0.5"),
    "rows": ({"partial_rotary_factor": None, "rotary_dim": 3}, "--rotary-percent 0.5"),
    "all": ({"partial_rotary_factor": None}, None),
}


@pytest.mark.parametrize(("changes", "flag"), ROTATION.values(), ids=ROTATION.keys())
def test_training_is_told_which_part_of_a_head_rotates(changes, flag, tmp_path):
    config = {**CONFIG, **changes}
    save(tmp_path / "hf", config)
    flags = hf2mg(tmp_path / "hf", tmp_path / "mg").training_flags
    assert f" {flag} " in flags if flag else "--rotary-percent" not in flags


def test_checkpoint_tells_training_of_experts_and_norms(tmp_path):
    save(tmp_path / "hf")
    hf2mg(tmp_path / "hf", tmp_path / "mg")
    (shard,) = shards_in(tmp_path / "mg").values()
    args = vars(shard["args"])
    assert args["qk_layernorm"] is args["router_bias"] is args["moe_router_enable_expert_bias"] is True
    assert args["group_query_attention"] is True
    assert (args["num_query_groups"], args["kv_channels"], args["moe_layer_freq"]) == (4, 6, 1)
    assert (args["n_group"], args["topk_group"], args["partial_rotary_factor"]) == (4, 2, 0.5)
    assert (args["n_shared_experts"], args["num_shared_experts"]) == (3, 3)
    assert args["moe_shared_expert_intermediate_size"] == 3 * 14
