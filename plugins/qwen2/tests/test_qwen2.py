"""Qwen2: the contract, which layers have experts, and what training is told of biases and shared experts."""

from argparse import Namespace

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM

from mscvt import DENSE, MOE
from mscvt.testing import (
    FamilyContract,
    Options,
    contents_in,
    hf2mg,
    layers_of,
    load_registry,
    mg2hf,
    save_huggingface,
    shards_in,
    source_tensors,
)

CONFIG = {
    "model_type": "qwen2",
    "dtype": "bfloat16",
    "num_hidden_layers": 4,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
MIXTURE = {
    **CONFIG,
    "model_type": "qwen2_moe",
    "moe_intermediate_size": 14,
    "shared_expert_intermediate_size": 42,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "qkv_bias": True,
}


class TestQwen25(FamilyContract):
    model_type = "qwen25"
    config = CONFIG
    real = Qwen2Config, Qwen2ForCausalLM


class TestTiedQwen25(TestQwen25):
    config = {**CONFIG, "tie_word_embeddings": True}
    cases = ("one_rank", "tp2_pp2_padded_vocabulary", "pp2_dualpipev")


class TestQwen2Moe(FamilyContract):
    model_type = "qwen2-moe"
    config = MIXTURE
    real = Qwen2MoeConfig, Qwen2MoeForCausalLM


class TestSharedExpertOfAnyWidth(TestQwen2Moe):
    config = {**MIXTURE, "shared_expert_intermediate_size": 20}
    cases = ("tp2_ep2", "tp2_ep2_etp1")


class TestDenseLayers(TestQwen2Moe):
    config = {**MIXTURE, "decoder_sparse_step": 2, "mlp_only_layers": [3]}
    cases = ("tp2_pp2_ep2_grouped", "tp2_transformer_engine")


class TestQwen2MoeWithoutBiases(TestQwen2Moe):
    config = {**MIXTURE, "qkv_bias": False}
    cases = ("tp2_ep2",)


KINDS = {
    "every layer": ({}, "mmmm"),
    "mlp_only_layers": ({"mlp_only_layers": [0, 2]}, "dmdm"),
    "decoder_sparse_step 3": ({"decoder_sparse_step": 3}, "ddmd"),
    "both": ({"decoder_sparse_step": 2, "mlp_only_layers": [1]}, "dddm"),
}


@pytest.mark.parametrize(("changes", "kinds"), KINDS.values(), ids=KINDS.keys())
def test_layers_with_experts_are_those_of_the_rule(changes, kinds):
    layers = layers_of(load_registry().family("qwen2-moe"), {**MIXTURE, **changes})
    assert [layer.kind for layer in layers] == [{"d": DENSE, "m": MOE}[kind] for kind in kinds]


def convert(model_type, config, folder):
    save_huggingface(folder / "hf", config, source_tensors(load_registry().family(model_type), config))
    conversion = hf2mg(folder / "hf", folder / "mg", Options(target_tensor_parallel_size=2))
    return conversion.training_flags, vars(shards_in(folder / "mg")["mp_rank_00"]["args"])


def test_training_is_told_of_the_biases(tmp_path):
    flags, args = convert("qwen25", CONFIG, tmp_path)
    assert args["add_qkv_bias"] is True
    assert "--add-qkv-bias" in flags.split()


@pytest.mark.parametrize(("width", "number"), [(42, 3), (20, None)])
def test_training_is_told_of_the_shared_expert(width, number, tmp_path):
    """The shared expert counts as so many usual ones, where it is as wide."""
    flags, args = convert("qwen2-moe", {**MIXTURE, "shared_expert_intermediate_size": width}, tmp_path)
    assert args["add_qkv_bias"] is args["shared_expert_gate"] is True
    assert args["moe_shared_expert_intermediate_size"] == width
    assert args.get("n_shared_experts") == number
    assert {"--add-qkv-bias", "--shared-expert-gate"} <= set(flags.split())
    assert (f"--n-shared-experts {number}" in flags) == (number is not None)


def test_checkpoint_that_counts_shared_experts_is_read(tmp_path):
    """Training scripts give their number, not their width."""
    convert("qwen2-moe", MIXTURE, tmp_path)
    for path in (tmp_path / "mg").rglob("model_optim_rng.pt"):
        with torch.serialization.safe_globals([Namespace]):
            state = torch.load(path, weights_only=True)
        del state["args"].moe_shared_expert_intermediate_size
        torch.save(state, path)
    mg2hf(tmp_path / "mg", tmp_path / "back")
    assert contents_in(tmp_path / "back") == contents_in(tmp_path / "hf")
