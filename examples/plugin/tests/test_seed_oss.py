"""Seed-OSS: the contract, what transformers writes, and the layout of the bias."""

from argparse import Namespace

import torch
from transformers import SeedOssConfig, SeedOssForCausalLM

from mscvt.formats.huggingface.config import read_config
from mscvt.jobs.conversion import Settings, run_conversion
from mscvt.jobs.prepare import Request, prepare_to_megatron
from mscvt.model.options import Options
from mscvt.plugins.registry import load_registry
from mscvt.testing import FamilyContract, shapes_in, source_shapes

CONFIG = {
    "model_type": "seed_oss",
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


class TestSeedOss(FamilyContract):
    model_type = "seed-oss"
    config = CONFIG


def test_names_and_shapes_are_those_of_transformers(tmp_path):
    SeedOssForCausalLM(SeedOssConfig(**CONFIG)).save_pretrained(tmp_path)
    family = load_registry().family("seed-oss")
    assert shapes_in(tmp_path) == source_shapes(family, read_config(tmp_path))


def test_bias_follows_the_rows_of_the_weight(tmp_path):
    model = SeedOssForCausalLM(SeedOssConfig(**CONFIG))
    parts = {}
    for name in "qkv":
        bias = getattr(model.model.layers[2].self_attn, f"{name}_proj").bias
        torch.nn.init.normal_(bias)
        parts[name] = bias.detach().view(4, -1, 6)  # [kv_groups, heads of the group, head_dim]
    model.save_pretrained(tmp_path / "hf")
    options = Options(target_tensor_parallel_size=2, target_pipeline_parallel_size=2)
    run_conversion(prepare_to_megatron(Request(tmp_path / "hf", options), load_registry()), tmp_path / "mg", Settings())
    groups = torch.cat([parts["q"], parts["k"], parts["v"]], dim=1)
    for rank in range(2):
        path = tmp_path / f"mg/iter_0000001/mp_rank_{rank:02d}_001/model_optim_rng.pt"
        with torch.serialization.safe_globals([Namespace]):
            shard = torch.load(path, weights_only=True)
        bias = shard["model"]["decoder.layers.0.self_attention.linear_qkv.bias"]
        assert torch.equal(bias, groups[2 * rank : 2 * rank + 2].reshape(-1))
        assert shard["args"].add_qkv_bias
