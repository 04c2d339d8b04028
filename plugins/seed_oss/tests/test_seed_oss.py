"""Seed-OSS: the contract with the biases that a configuration can speak of, and where they lie."""

import pytest
import torch
from transformers import SeedOssConfig, SeedOssForCausalLM

from mscvt.testing import FamilyContract, Options, hf2mg, load_registry, save_huggingface, shards_in, source_tensors

CONFIG = {
    "model_type": "seed_oss",
    "dtype": "bfloat16",
    "attention_bias": True,
    "attention_out_bias": False,
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
EVERY_BIAS = {**CONFIG, "attention_out_bias": True}
NO_BIAS = {**CONFIG, "attention_bias": False}


class TestSeedOss(FamilyContract):
    model_type = "seed-oss"
    config = CONFIG
    real = SeedOssConfig, SeedOssForCausalLM


class TestSeedOssWithEveryBias(TestSeedOss):
    config = EVERY_BIAS
    cases = ("one_rank", "tp2_pp2_padded_vocabulary", "tp2_transformer_engine")


class TestSeedOssWithoutBiases(TestSeedOss):
    config = NO_BIAS
    cases = ("tp2",)


def convert(config, folder):
    tensors = source_tensors(load_registry().family("seed-oss"), config)
    save_huggingface(folder / "hf", config, tensors)
    conversion = hf2mg(folder / "hf", folder / "mg", Options(target_tensor_parallel_size=2))
    return tensors, conversion, shards_in(folder / "mg")


def test_biases_are_regrouped_or_whole_on_every_rank(tmp_path):
    tensors, _, shards = convert(EVERY_BIAS, tmp_path)
    for rank in range(2):
        model = shards[f"mp_rank_0{rank}"]["model"]
        for layer in range(4):
            q, k, v, proj = (tensors[f"model.layers.{layer}.self_attn.{part}_proj.bias"] for part in "qkvo")
            groups = [
                torch.cat([q[18 * g : 18 * g + 18], k[6 * g : 6 * g + 6], v[6 * g : 6 * g + 6]]) for g in range(4)
            ]
            prefix = f"decoder.layers.{layer}.self_attention."
            assert torch.equal(model[prefix + "linear_qkv.bias"], torch.cat(groups[2 * rank : 2 * rank + 2]))
            assert torch.equal(model[prefix + "linear_proj.bias"], proj)


@pytest.mark.parametrize(
    ("config", "said"),
    [(CONFIG, (True, False)), (EVERY_BIAS, (True, True)), (NO_BIAS, (False, False))],
    ids=["usual", "every", "none"],
)
def test_training_is_told_of_the_biases(config, said, tmp_path):
    _, conversion, shards = convert(config, tmp_path)
    args = shards["mp_rank_00"]["args"]
    assert (args.add_qkv_bias, args.add_dense_bias) == said
    words = conversion.training_flags.split()
    assert ("--add-qkv-bias" in words, "--add-dense-bias" in words) == said
