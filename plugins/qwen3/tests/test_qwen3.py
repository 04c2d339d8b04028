"""Qwen3: the contract, with the head tied to the embedding and not, and the names that transformers writes."""

import pytest
from transformers import Qwen3Config, Qwen3ForCausalLM

from mscvt.formats.huggingface.config import read_config
from mscvt.model.hyperparameters import hyperparameters
from mscvt.plugins.registry import load_registry
from mscvt.testing import FamilyContract, shapes_in, source_shapes

CONFIG = {
    "model_type": "qwen3",
    "dtype": "bfloat16",
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
TIED = {**CONFIG, "tie_word_embeddings": True}


class TestQwen3(FamilyContract):
    model_type = "qwen3"
    config = CONFIG


class TestTiedQwen3(TestQwen3):
    config = TIED
    cases = ("one_rank", "tp2_pp2_padded_vocabulary", "pp2_dualpipev")


@pytest.mark.parametrize("config", [CONFIG, TIED], ids=["untied", "tied"])
def test_names_shapes_and_sizes_are_those_of_transformers(config, tmp_path):
    Qwen3ForCausalLM(Qwen3Config(**config)).save_pretrained(tmp_path)
    family, written = load_registry().family("qwen3"), read_config(tmp_path)
    assert shapes_in(tmp_path) == source_shapes(family, written)
    assert hyperparameters(written, family.model_type, "written") == hyperparameters(
        config, family.model_type, "config"
    )
