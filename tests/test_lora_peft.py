"""PEFT itself: it loads what is exported and merges it to the same bytes; what it saves is merged as it merges."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from command_line import run_main

SHAPE = {
    "vocab_size": 88,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
MOE = {**SHAPE, "moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 10}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
KINDS = {
    "some, of ranks and scales of their own": (
        "llama",
        SHAPE,
        {
            "target_modules": ["q_proj", "down_proj"],
            "rank_pattern": {"layers.1.mlp.down_proj": 3},
            "alpha_pattern": {"q_proj": 2},
        },
    ),
    "rslora": ("llama", SHAPE, {"target_modules": ["v_proj"], "r": 4, "use_rslora": True}),
    "embedding": ("llama", SHAPE, {"target_modules": ["embed_tokens", "q_proj"]}),
    "head saved whole": ("llama", SHAPE, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "experts in one parameter": (
        "qwen3_moe",
        MOE,
        {"target_modules": ATTENTION, "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
    ),
    "one parameter of experts": (
        "qwen3_moe",
        MOE,
        {"target_modules": [], "target_parameters": ["mlp.experts.down_proj"]},
    ),
}
EXPORTED = {
    "linear layers": ("llama", SHAPE, {"target_modules": [*ATTENTION, *MLP]}),
    "experts in one parameter": KINDS["experts in one parameter"],
}
SPLIT = ["--target-tensor-parallel-size", "2", "--target-pipeline-parallel-size", "2"]
TOKENS = torch.arange(60).reshape(2, 30) % 88


def whole_numbers(parameters, most, seed):
    """Fill parameters with whole numbers, of which every order of sums gives the same."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randint(-most, most + 1, parameter.shape, generator=random))


def base_of(kind, shape, folder):
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**shape), dtype=torch.bfloat16)
    whole_numbers([p for p in model.parameters() if p.ndim > 1], 31, 1)
    model.save_pretrained(folder)
    return folder


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()


def run(*words):
    outcome = run_main(*words)
    assert outcome.code == 0, outcome.err
    return outcome


def assert_same_model(ours, theirs):
    """Every parameter has the same bytes, and the logits are the same."""
    expected = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    with torch.no_grad():
        assert torch.equal(ours(TOKENS).logits, theirs(TOKENS).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_adapter_that_peft_made_is_merged_as_peft_merges_it(kind, tmp_path):
    family, shape, settings = KINDS[kind]
    hf = base_of(family, shape, tmp_path / "hf")
    model = get_peft_model(load(hf), LoraConfig(**{"r": 2, "lora_alpha": 4, "task_type": "CAUSAL_LM", **settings}))
    whole_numbers([p for p in model.parameters() if p.requires_grad], 2, 2)
    model.save_pretrained(tmp_path / "adapter")
    split = [*SPLIT, "--target-expert-parallel-size", "2", "--moe-grouped-gemm"] if family == "qwen3_moe" else SPLIT
    run("hf2mg", "--load-dir", hf, "--lora-load", tmp_path / "adapter", "--save-dir", tmp_path / "mg", *split)
    run("mg2hf", "--load-dir", tmp_path / "mg", "--save-dir", tmp_path / "back", "--hf-cfg-dir", hf)
    merged = PeftModel.from_pretrained(load(hf), tmp_path / "adapter").merge_and_unload()
    assert_same_model(load(tmp_path / "back"), merged)


@pytest.mark.parametrize("kind", EXPORTED)
def test_peft_loads_what_is_exported_and_merges_it_to_the_same_model(kind, tmp_path):
    family, shape, settings = EXPORTED[kind]
    hf = base_of(family, shape, tmp_path / "hf")
    model = get_peft_model(load(hf), LoraConfig(**{"r": 2, "lora_alpha": 4, "task_type": "CAUSAL_LM", **settings}))
    whole_numbers([p for p in model.parameters() if p.requires_grad], 2, 2)
    model.save_pretrained(tmp_path / "adapter")
    split = [*SPLIT, "--target-expert-parallel-size", "2", "--moe-grouped-gemm"] if family == "qwen3_moe" else SPLIT
    of_hf, adapter = ["--load-dir", hf], ["--lora-load", tmp_path / "adapter"]
    run("hf2mg", *of_hf, "--save-dir", tmp_path / "mg", *split)
    run("hf2mg", *of_hf, *adapter, "--save-lora-to-mg", "--save-dir", tmp_path / "factors", *split)
    run("mg2hf", "--load-dir", tmp_path / "factors", "--save-dir", tmp_path / "exported", "--save-lora-to-hf")
    of_mg = ["--load-dir", tmp_path / "mg", "--lora-load", tmp_path / "factors"]
    run("mg2hf", *of_mg, "--save-dir", tmp_path / "back", "--hf-cfg-dir", hf)
    theirs = PeftModel.from_pretrained(load(hf), tmp_path / "exported").merge_and_unload()
    assert_same_model(load(tmp_path / "back"), theirs)
    assert_same_model(theirs, model.merge_and_unload())
