"""Every family: transformers' own model, to Megatron and back, opens in transformers and computes the same logits."""

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from typer.testing import CliRunner

from mscvt.cli.app import app

DENSE = {
    "vocab_size": 88,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
EXPERTS = {"moe_intermediate_size": 20, "num_experts_per_tok": 2}
LATENT = {
    **DENSE,
    **EXPERTS,
    "num_key_value_heads": 8,
    "n_routed_experts": 4,
    "n_shared_experts": 2,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 12,
    "q_lora_rank": 20,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 10,
}
SPLIT = ["--target-tensor-parallel-size", "2", "--target-pipeline-parallel-size", "2"]
SPARSE = [*SPLIT, "--target-expert-parallel-size", "2", "--moe-grouped-gemm"]
FAMILIES = {
    "llama2": ("llama", DENSE, SPLIT),
    "qwen3": ("qwen3", DENSE | {"head_dim": 10, "tie_word_embeddings": True}, SPLIT),
    "qwen3-moe": ("qwen3_moe", DENSE | EXPERTS | {"head_dim": 10, "num_experts": 4}, SPARSE),
    "deepseek2": ("deepseek_v2", LATENT, [*SPARSE, "--mla-mm-split"]),
    "deepseek2-lite": ("deepseek_v2", LATENT | {"q_lora_rank": None}, SPARSE),
    "deepseek3": ("deepseek_v3", LATENT, [*SPARSE, "--moe-tp-extend-ep"]),
    "deepseek32": ("deepseek_v32", LATENT | {"index_n_heads": 2, "index_head_dim": 8, "index_topk": 7}, SPARSE),
}
TOKENS = torch.arange(60).reshape(2, 30) % 88


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def logits_of(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(TOKENS).logits


@pytest.mark.parametrize("model_type", FAMILIES)
def test_logits_are_exactly_equal_after_both_ways(model_type, tmp_path):
    config_type, sizes, options = FAMILIES[model_type]
    torch.manual_seed(3)
    config = CONFIG_MAPPING[config_type](**sizes)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path / "hf")
    family = ["--model-type-hf", model_type]
    run("hf2mg", *family, "--load-dir", tmp_path / "hf", "--save-dir", tmp_path / "mg", *options)
    run("mg2hf", "--load-dir", tmp_path / "mg", "--save-dir", tmp_path / "back", "--hf-cfg-dir", tmp_path / "hf")
    expected = logits_of(tmp_path / "hf")
    assert torch.equal(logits_of(tmp_path / "back"), expected)
    assert expected.std() > 0
