"""Qwen3: the contract, with the head tied to the embedding and not, and the names that transformers writes."""

from transformers import Qwen3Config, Qwen3ForCausalLM

from mscvt.testing import FamilyContract

CONFIG = {
    "model_type": "qwen3",
    "dtype": "bfloat16",
    "num_hidden_layers": 4,
    "hidden_size": 40,
    "intermediate_size": 56,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 6,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
TIED = {**CONFIG, "tie_word_embeddings": True}


class TestQwen3(FamilyContract):
    model_type = "qwen3"
    config = CONFIG
    real = Qwen3Config, Qwen3ForCausalLM


class TestTiedQwen3(TestQwen3):
    config = TIED
    cases = ("one_rank", "tp2_pp2_padded_vocabulary", "pp2_dualpipev")
