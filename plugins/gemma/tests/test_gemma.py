"""Gemma 2: the contract, which norm is which, and what training is told of the model."""

import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from mscvt.testing import (
    Conventions,
    FamilyContract,
    Options,
    hf2mg,
    load_registry,
    save_huggingface,
    shards_in,
    source_tensors,
)

CONFIG = {
    "model_type": "gemma2",
    "dtype": "bfloat16",
    "num_hidden_layers": 4,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 6,
    "query_pre_attn_scalar": 9,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "sliding_window": 32,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
UNSAID = {name: value for name, value in CONFIG.items() if name != "tie_word_embeddings"}
"""What releases say: that the head is the embedding goes without saying."""


class TestGemma2(FamilyContract):
    model_type = "gemma2"
    config = CONFIG
    real = Gemma2Config, Gemma2ForCausalLM
    conventions = Conventions(norm_offset=1.0, scales_embedding=True)


class TestGemma2AsReleased(TestGemma2):
    config = UNSAID
    cases = ("one_rank", "tp2_pp2_padded_vocabulary", "pp2_dualpipev")


def convert(folder):
    tensors = source_tensors(load_registry().family("gemma2"), UNSAID)
    save_huggingface(folder / "hf", UNSAID, tensors)
    conversion = hf2mg(folder / "hf", folder / "mg", Options(target_pipeline_parallel_size=2))
    return tensors, conversion, shards_in(folder / "mg")


NORMS = {
    "input_layernorm": "input_layernorm",
    "post_attention_layernorm": "post_attn_norm",
    "pre_feedforward_layernorm": "pre_mlp_layernorm",
    "post_feedforward_layernorm": "post_mlp_layernorm",
}


def test_four_norms_stand_where_training_applies_them(tmp_path):
    tensors, _, shards = convert(tmp_path)
    for layer in range(4):
        model = shards[f"mp_rank_00_00{layer // 2}"]["model"]
        for name, key in NORMS.items():
            expected = tensors[f"model.layers.{layer}.{name}.weight"]
            assert torch.equal(model[f"decoder.layers.{layer % 2}.{key}.weight"], expected)


def test_last_stage_has_the_embedding_as_its_head(tmp_path):
    tensors, _, shards = convert(tmp_path)
    assert "lm_head.weight" not in tensors
    assert "output_layer.weight" not in shards["mp_rank_00_000"]["model"]
    assert torch.equal(shards["mp_rank_00_001"]["model"]["output_layer.weight"], tensors["model.embed_tokens.weight"])


def test_training_is_told_of_norms_capping_and_window(tmp_path):
    _, conversion, shards = convert(tmp_path)
    args = vars(shards["mp_rank_00_000"]["args"])
    assert args["post_norm"] is args["add_rmsnorm_offset"] is True
    assert args["untie_embeddings_and_output_weights"] is args["swiglu"] is False
    for words in (
        "--post-norm",
        "--add-rmsnorm-offset",
        "--gelu-tanh",
        "--input-embeds-norm",
        "--query-pre-attn-scalar 9",
        "--attn-logit-softcapping 50.0",
        "--output-logit-softcapping 30.0",
        "--interleave-sliding-window 32",
    ):
        assert f" {words} " in f"{conversion.training_flags} ", words
