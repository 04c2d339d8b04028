"""PLM: the contract, the rows of the uncompressed query, the MLP without a gate."""

import pytest
import torch

from mscvt import MscvtError
from mscvt.testing import (
    FamilyContract,
    Options,
    content,
    hf2mg,
    load_registry,
    save_huggingface,
    shards_in,
    source_tensors,
)

CONFIG = {
    "model_type": "plm",
    "dtype": "bfloat16",
    "hidden_act": "relu2",
    "num_hidden_layers": 4,
    "hidden_size": 48,
    "intermediate_size": 88,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "q_lora_rank": None,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 4,
    "v_head_dim": 14,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
UNSAID = {
    name: value
    for name, value in CONFIG.items()
    if name not in ("q_lora_rank", "num_key_value_heads", "tie_word_embeddings")
}


class TestPlm(FamilyContract):
    model_type = "plm"
    config = CONFIG
    options = {"megatron_0.18": Options(dialect="megatron", megatron_core_version="0.18")}


class TestPlmWithLittleSaid(TestPlm):
    config = UNSAID
    cases = ("one_rank", "tp2_pp2_padded_vocabulary", "pp2_dualpipev")


def convert(folder, **more):
    tensors = source_tensors(load_registry().family("plm"), CONFIG) | more
    save_huggingface(folder / "hf", CONFIG, tensors)
    conversion = hf2mg(folder / "hf", folder / "mg", Options(target_tensor_parallel_size=2))
    return tensors, conversion, shards_in(folder / "mg")


def test_query_and_compression_are_whole_and_the_mlp_is_cut_by_plain_rows(tmp_path):
    tensors, _, shards = convert(tmp_path)
    for rank in range(2):
        model = shards[f"mp_rank_0{rank}"]["model"]
        for layer in range(4):
            source, prefix = f"model.layers.{layer}.", f"decoder.layers.{layer}."
            down = [tensors[f"{source}self_attn.{name}.weight"] for name in ("q_proj", "kv_a_proj_with_mqa")]
            up = tensors[f"{source}self_attn.kv_b_proj.weight"]
            assert torch.equal(model[prefix + "self_attention.linear_qkv.weight"], torch.cat(down))
            assert torch.equal(model[prefix + "self_attention.linear_kv_up_proj.weight"], up[72 * rank :][:72])
            rows = tensors[f"{source}mlp.up_proj.weight"][44 * rank :][:44]
            columns = tensors[f"{source}mlp.down_proj.weight"][:, 44 * rank :][:, :44]
            assert torch.equal(model[prefix + "mlp.linear_fc1.weight"], rows)
            assert torch.equal(model[prefix + "mlp.linear_fc2.weight"], columns)


def test_training_is_told_of_the_activation_and_of_latent_attention(tmp_path):
    _, conversion, shards = convert(tmp_path)
    args = vars(shards["mp_rank_00"]["args"])
    assert args["multi_latent_attention"] is args["squared_relu"] is args["qk_layernorm"] is True
    assert args["swiglu"] is args["untie_embeddings_and_output_weights"] is False
    names = ("kv_lora_rank", "qk_head_dim", "qk_pos_emb_head_dim", "v_head_dim", "fc_type", "q_lora_rank")
    assert [args[name] for name in names] == [12, 10, 4, 14, "up_down", None]
    assert "--squared-relu" in conversion.training_flags.split()


def test_attention_biases_are_refused_by_name(tmp_path):
    name = "model.layers.0.self_attn.q_proj.bias"
    with pytest.raises(MscvtError, match=f"no rule takes: {name}"):
        convert(tmp_path, **{name: content(name, (84,))})
