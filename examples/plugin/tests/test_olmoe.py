"""OLMoE: the contract, and where the norms of its heads lie."""

import torch
from transformers import OlmoeConfig, OlmoeForCausalLM

from mscvt.testing import FamilyContract, Options, hf2mg, load_registry, save_huggingface, shards_in, source_tensors

CONFIG = {
    "model_type": "olmoe",
    "dtype": "bfloat16",
    "num_hidden_layers": 4,
    "hidden_size": 48,
    "intermediate_size": 14,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}


class TestOlmoe(FamilyContract):
    model_type = "olmoe"
    config = CONFIG
    real = OlmoeConfig, OlmoeForCausalLM


def test_norms_of_all_heads_are_whole_on_every_rank(tmp_path):
    tensors = source_tensors(load_registry().family("olmoe"), CONFIG)
    save_huggingface(tmp_path / "hf", CONFIG, tensors)
    hf2mg(tmp_path / "hf", tmp_path / "mg", Options(target_tensor_parallel_size=2))
    for shard in shards_in(tmp_path / "mg").values():
        for name, length in {"q": 48, "k": 16}.items():
            norm = shard["model"][f"decoder.layers.2.self_attention.{name}_layernorm.weight"]
            assert torch.equal(norm, tensors[f"model.layers.2.self_attn.{name}_norm.weight"])
            assert norm.shape == (length,)
