"""Mixtral: the contract, and which of w1, w2 and w3 is what."""

import torch
from transformers import MixtralConfig, MixtralForCausalLM

from mscvt.testing import FamilyContract, Options, hf2mg, load_registry, save_huggingface, shards_in, source_tensors

CONFIG = {
    "model_type": "mixtral",
    "dtype": "bfloat16",
    "num_hidden_layers": 4,
    "hidden_size": 48,
    "intermediate_size": 14,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}


class TestMixtral(FamilyContract):
    model_type = "mixtral"
    config = CONFIG
    real = MixtralConfig, MixtralForCausalLM


class TestMixtralWithHeadSize(TestMixtral):
    config = {**CONFIG, "head_dim": 10}
    cases = ("one_rank", "tp2_ep2_transformer_engine_grouped")


def test_w1_is_gate_w3_is_up_and_w2_is_down(tmp_path):
    tensors = source_tensors(load_registry().family("mixtral"), CONFIG)
    save_huggingface(tmp_path / "hf", CONFIG, tensors)
    hf2mg(tmp_path / "hf", tmp_path / "mg", Options(target_tensor_parallel_size=2, target_expert_parallel_size=4))
    shards = shards_in(tmp_path / "mg")
    for tp in range(2):
        for ep in range(4):
            shard = shards[f"mp_rank_0{tp}_00{ep}"]
            assert shard["args"].moe_intermediate_size == shard["args"].ffn_hidden_size == 14
            for j in range(2):
                gate, up, down = (
                    tensors[f"model.layers.3.block_sparse_moe.experts.{2 * ep + j}.{name}.weight"]
                    for name in ("w1", "w3", "w2")
                )
                key = f"decoder.layers.3.mlp.experts.local_experts.{j}.linear_fc"
                part = slice(7 * tp, 7 * tp + 7)
                assert torch.equal(shard["model"][f"{key}1.weight"], torch.cat([gate[part], up[part]]))
                assert torch.equal(shard["model"][f"{key}2.weight"], down[:, part])
