"""Magistral: the contract, and the files beside the weights that are none."""

import torch
from safetensors.torch import save_file
from transformers import MistralConfig, MistralForCausalLM

from mscvt.testing import (
    FamilyContract,
    contents_in,
    hf2mg,
    load_registry,
    mg2hf,
    save_huggingface,
    shards_in,
    source_tensors,
)

CONFIG = {
    "model_type": "mistral",
    "dtype": "bfloat16",
    "num_hidden_layers": 4,
    "hidden_size": 40,
    "intermediate_size": 56,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 12,
    "sliding_window": None,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 1e9, "rope_type": "default"},
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}


class TestMagistral(FamilyContract):
    model_type = "magistral"
    config = CONFIG
    real = MistralConfig, MistralForCausalLM


def test_weights_under_names_of_mistral_are_passed_over(tmp_path):
    """Releases hold all weights once more in a file of their makers' own."""
    hf, mg, back = tmp_path / "hf", tmp_path / "mg", tmp_path / "back"
    save_huggingface(hf, CONFIG, source_tensors(load_registry().family("magistral"), CONFIG))
    expected = contents_in(hf)
    save_file({"tok_embeddings.weight": torch.zeros(90, 40)}, hf / "consolidated.safetensors")
    hf2mg(hf, mg)
    mg2hf(mg, back)
    assert contents_in(back) == expected
    args = shards_in(mg)["mp_rank_00"]["args"]
    assert (args.tokenizer_type, args.kv_channels, args.qk_layernorm) == ("MagistralTokenizer", 12, False)
