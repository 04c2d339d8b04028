"""Qwen3-MoE: the contract, which layers have experts, and the names that transformers writes."""

import pytest
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from mscvt.formats.huggingface.config import read_config
from mscvt.model.hyperparameters import hyperparameters
from mscvt.plugins.registry import load_registry
from mscvt.testing import FamilyContract, shapes_in, source_shapes

CONFIG = {
    "model_type": "qwen3_moe",
    "dtype": "bfloat16",
    "num_hidden_layers": 4,
    "hidden_size": 40,
    "intermediate_size": 56,
    "moe_intermediate_size": 14,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 6,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
DENSE_BY_NUMBER = {**CONFIG, "mlp_only_layers": [0, 2]}
DENSE_BY_STEP = {**CONFIG, "decoder_sparse_step": 3}
RENAMED = {"num_local_experts": "num_experts"}


class TestQwen3Moe(FamilyContract):
    model_type = "qwen3-moe"
    config = CONFIG
    renamed_fields = RENAMED


class TestDenseLayersByNumber(TestQwen3Moe):
    config = DENSE_BY_NUMBER
    cases = ("tp2_pp2_ep2_grouped", "tp2_transformer_engine", "three_layers")


class TestDenseLayersByStep(TestQwen3Moe):
    config = DENSE_BY_STEP
    cases = ("tp2_ep2", "pp2_virtual_stages")


SPARSE = {
    "every layer": ({}, "mmmm"),
    "mlp_only_layers": ({"mlp_only_layers": [0, 2]}, "dmdm"),
    "decoder_sparse_step 2": ({"decoder_sparse_step": 2}, "dmdm"),
    "decoder_sparse_step 3": ({"decoder_sparse_step": 3}, "ddmd"),
    "both": ({"decoder_sparse_step": 2, "mlp_only_layers": [1]}, "dddm"),
}


@pytest.mark.parametrize(("changes", "kinds"), SPARSE.values(), ids=SPARSE.keys())
def test_names_shapes_and_sizes_are_those_of_transformers(changes, kinds, tmp_path):
    config = {**CONFIG, **changes}
    Qwen3MoeForCausalLM(Qwen3MoeConfig(**config)).save_pretrained(tmp_path)
    family, written = load_registry().family("qwen3-moe"), read_config(tmp_path)
    assert shapes_in(tmp_path) == source_shapes(family, written)
    values = hyperparameters(written, family.model_type, "written")
    assert values == hyperparameters(config, family.model_type, "config")
    layers = family.call("mscvt_layers", hyperparameters=values)
    assert [layer.kind[0] for layer in layers] == list(kinds)
