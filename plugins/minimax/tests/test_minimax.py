"""MiniMax M2: the contract, norms over all heads, and what the configuration says of MTP."""

import pytest
import torch
from transformers import MiniMaxM2Config, MiniMaxM2ForCausalLM

from mscvt import MscvtError
from mscvt.testing import FamilyContract, Options, hf2mg, load_registry, save_huggingface, shards_in, source_tensors

CONFIG = {
    "model_type": "minimax_m2",
    "dtype": "bfloat16",
    "num_hidden_layers": 4,
    "hidden_size": 54,
    "intermediate_size": 14,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 6,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
RELEASED = {**CONFIG, "use_mtp": True, "num_mtp_modules": 3, "mtp_transformer_layers": 1, "shared_intermediate_size": 0}


class TestMiniMaxM2(FamilyContract):
    model_type = "minimax_m2"
    config = CONFIG
    real = MiniMaxM2Config, MiniMaxM2ForCausalLM


class TestHiddenSizeThatHeadsDoNotDivide(TestMiniMaxM2):
    config = {**CONFIG, "hidden_size": 40}
    cases = ("one_rank", "tp2_pp2_ep2_grouped")


def save(config, folder):
    tensors = source_tensors(load_registry().family("minimax_m2"), config)
    save_huggingface(folder, config, tensors)
    return tensors


def test_norms_over_all_heads_are_whole_on_every_rank(tmp_path):
    tensors = save(CONFIG, tmp_path / "hf")
    hf2mg(tmp_path / "hf", tmp_path / "mg", Options(target_tensor_parallel_size=2))
    for shard in shards_in(tmp_path / "mg").values():
        for layer in range(4):
            for part, heads in (("q", 12), ("k", 4)):
                norm = shard["model"][f"decoder.layers.{layer}.self_attention.{part}_layernorm.weight"]
                assert norm.shape == (6 * heads,)
                assert torch.equal(norm, tensors[f"model.layers.{layer}.self_attn.{part}_norm.weight"])


def test_tensor_parallelism_is_converted_with_a_note(tmp_path):
    save(CONFIG, tmp_path / "hf")
    two = hf2mg(tmp_path / "hf", tmp_path / "two", Options(target_tensor_parallel_size=2))
    assert two.notes == (
        "--target-tensor-parallel-size 2: minimax_m2 models are not trained with tensor parallelism for now",
    )
    one = hf2mg(tmp_path / "hf", tmp_path / "one", Options(target_tensor_parallel_size=1))
    assert one.notes == ()


def test_mtp_modules_of_the_configuration_are_no_fault_and_can_not_be_taken(tmp_path):
    save(RELEASED, tmp_path / "hf")
    assert hf2mg(tmp_path / "hf", tmp_path / "mg").notes == ()
    with pytest.raises(MscvtError, match="--mtp-num-layers 1: minimax_m2 models have no"):
        hf2mg(tmp_path / "hf", tmp_path / "more", Options(mtp_num_layers=1))


def test_training_is_told_the_sizes_of_experts_and_heads(tmp_path):
    save(CONFIG, tmp_path / "hf")
    hf2mg(tmp_path / "hf", tmp_path / "mg")
    args = vars(shards_in(tmp_path / "mg")["mp_rank_00"]["args"])
    assert args["qk_layernorm"] is args["router_bias"] is args["untie_embeddings_and_output_weights"] is True
    names = ("moe_intermediate_size", "kv_channels", "num_query_groups", "first_k_dense_replace", "rotary_base")
    assert [args[name] for name in names] == [14, 6, 4, 0, 5000.0]
