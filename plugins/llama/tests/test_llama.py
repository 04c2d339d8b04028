"""Llama: the contract, the names that transformers writes, and what is refused or ignored."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mscvt import MscvtError
from mscvt.testing import FamilyContract, Options, content, hf2mg, load_registry, save_huggingface, source_tensors

CONFIG = {
    "model_type": "llama",
    "dtype": "bfloat16",
    "num_hidden_layers": 4,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
WITHOUT_GROUPS = {name: value for name, value in CONFIG.items() if name != "num_key_value_heads"}


class TestLlama(FamilyContract):
    model_type = "llama2"
    config = CONFIG
    real = LlamaConfig, LlamaForCausalLM


class TestLlamaWithoutKeyValueHeads(TestLlama):
    """The first Llama's configuration: as many kv groups as heads, and not said."""

    config = WITHOUT_GROUPS
    cases = ("one_rank", "tp2_pp2_padded_vocabulary")


def convert_with(more, folder):
    """Convert a source that has these tensors besides its own."""
    family = load_registry().family("llama2")
    save_huggingface(folder / "hf", CONFIG, source_tensors(family, CONFIG) | more)
    return hf2mg(folder / "hf", folder / "mg", Options(target_tensor_parallel_size=2))


def test_attention_biases_are_refused_by_name(tmp_path):
    name = "model.layers.{}.self_attn.{}_proj.bias"
    biases = {name.format(layer, part): content("bias", (24,)) for layer in range(4) for part in "qkvo"}
    with pytest.raises(MscvtError) as caught:
        convert_with(biases, tmp_path)
    assert set(caught.value.faults) == {f"no rule takes: {bias}" for bias in biases}


def test_rotary_buffers_of_old_checkpoints_are_left_out_and_reported(tmp_path):
    name = "model.layers.{}.self_attn.rotary_emb.inv_freq"
    buffers = {name.format(layer): torch.ones(3) for layer in range(4)}
    conversion = convert_with(buffers, tmp_path)
    assert conversion.plan.left_out == dict.fromkeys(buffers, "holds no weights")
    assert conversion.notes == (f"left out, holds no weights: 4 tensors, {name.format(0)} and others",)
