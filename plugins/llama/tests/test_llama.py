"""Llama: the contract, the names that transformers writes, and what is refused or ignored."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mscvt import MscvtError
from mscvt.formats.huggingface.config import read_config
from mscvt.jobs.prepare import Request, prepare_to_megatron
from mscvt.model.hyperparameters import hyperparameters
from mscvt.model.options import Options
from mscvt.plugins.registry import load_registry
from mscvt.testing import FamilyContract, content, save_huggingface, shapes_in, source_shapes, source_tensors

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


class TestLlamaWithoutKeyValueHeads(TestLlama):
    """The first Llama's configuration: as many kv groups as heads, and not said."""

    config = WITHOUT_GROUPS
    cases = ("one_rank", "tp2_pp2_padded_vocabulary")


def test_names_shapes_and_sizes_are_those_of_transformers(tmp_path):
    LlamaForCausalLM(LlamaConfig(**CONFIG)).save_pretrained(tmp_path)
    family, written = load_registry().family("llama2"), read_config(tmp_path)
    assert shapes_in(tmp_path) == source_shapes(family, written)
    assert hyperparameters(written, family.model_type, "written") == hyperparameters(
        CONFIG, family.model_type, "config"
    )


def plan_with(more, folder):
    """The plan for a source that has these tensors besides its own."""
    registry = load_registry()
    tensors = source_tensors(registry.family("llama2"), CONFIG) | more
    save_huggingface(folder, CONFIG, tensors)
    return prepare_to_megatron(Request(folder, Options(target_tensor_parallel_size=2)), registry)


def test_attention_biases_are_refused_by_name(tmp_path):
    name = "model.layers.{}.self_attn.{}_proj.bias"
    biases = {name.format(layer, part): content("bias", (24,)) for layer in range(4) for part in "qkvo"}
    with pytest.raises(MscvtError) as caught:
        plan_with(biases, tmp_path)
    assert set(caught.value.faults) == {f"no rule takes: {bias}" for bias in biases}


def test_rotary_buffers_of_old_checkpoints_are_left_out_and_reported(tmp_path):
    name = "model.layers.{}.self_attn.rotary_emb.inv_freq"
    buffers = {name.format(layer): torch.ones(3) for layer in range(4)}
    conversion = plan_with(buffers, tmp_path)
    assert conversion.plan.left_out == dict.fromkeys(buffers, "holds no weights")
    assert conversion.notes == (f"left out, holds no weights: 4 tensors, {name.format(0)} and others",)
