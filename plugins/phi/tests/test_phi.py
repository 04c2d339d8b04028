"""Phi: the contract, packed projections, and the biases of the mixture of experts."""

import torch
from transformers import Phi3Config, Phi3ForCausalLM, PhimoeConfig, PhimoeForCausalLM

from mscvt.testing import (
    Conventions,
    FamilyContract,
    Options,
    hf2mg,
    load_registry,
    save_huggingface,
    shards_in,
    source_tensors,
)

CONFIG = {
    "model_type": "phi3",
    "dtype": "bfloat16",
    "num_hidden_layers": 4,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 90,
    "pad_token_id": None,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default", "partial_rotary_factor": 1.0},
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
WITHOUT_GROUPS = {name: value for name, value in CONFIG.items() if name != "num_key_value_heads"}
MIXTURE = {
    **CONFIG,
    "model_type": "phimoe",
    "architectures": ["PhimoeForCausalLM"],
    "intermediate_size": 14,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
    "attention_bias": True,
    "lm_head_bias": True,
}


class TestPhi35(FamilyContract):
    model_type = "phi3.5"
    config = CONFIG
    real = Phi3Config, Phi3ForCausalLM
    not_saved = ("longrope",)


class TestPhi35WithoutKeyValueHeads(TestPhi35):
    """As many kv groups as heads, and not said."""

    config = WITHOUT_GROUPS
    cases = ("tp2_pp2_padded_vocabulary", "tp2_transformer_engine")


class TestPhi35WithHeadSize(TestPhi35):
    config = {**CONFIG, "head_dim": 10}
    cases = ("one_rank", "tp2")


class TestTiedPhi35(TestPhi35):
    config = {**CONFIG, "tie_word_embeddings": True}
    cases = ("one_rank", "tp2_pp2_padded_vocabulary")


FACTORS = {"long_factor": [1.08, 1.14], "short_factor": [1.0, 1.03]}
LONG = {
    **CONFIG,
    "original_max_position_embeddings": 32,
    "rope_parameters": {**FACTORS, "rope_theta": 5000.0, "rope_type": "longrope", "partial_rotary_factor": 0.75},
}


class TestPhi35WithLongContexts(TestPhi35):
    """As Phi-4-mini: three quarters of each head are rotated."""

    config = LONG
    not_computed = "long contexts scale the rotation by position"
    cases = ("tp2",)

    def older_config(self):
        older = {**super().older_config(), "partial_rotary_factor": 0.75}
        return older | {"rope_scaling": {"type": "longrope", **FACTORS}}


class TestPhi35Moe(FamilyContract):
    model_type = "phi3.5-moe"
    config = MIXTURE
    real = PhimoeConfig, PhimoeForCausalLM
    not_saved = ("longrope", "rotary_percent")
    conventions = Conventions(router="sparsemixer")


class TestPhi35MoeWithoutBiases(TestPhi35Moe):
    """The norms have biases in any case."""

    config = {**MIXTURE, "attention_bias": False, "lm_head_bias": False}
    cases = ("tp2_pp2_ep2_grouped",)


def convert(model_type, config, folder, **options):
    tensors = source_tensors(load_registry().family(model_type), config)
    save_huggingface(folder / "hf", config, tensors)
    conversion = hf2mg(folder / "hf", folder / "mg", Options(target_tensor_parallel_size=2, **options))
    return tensors, conversion, shards_in(folder / "mg")


def test_packed_rows_are_regrouped_before_they_are_cut(tmp_path):
    """All queries, then all keys, then all values; gate, then up."""
    tensors, _, shards = convert("phi3.5", CONFIG, tmp_path)
    for rank in range(2):
        model = shards[f"mp_rank_0{rank}"]["model"]
        for layer in range(4):
            q, k, v = tensors[f"model.layers.{layer}.self_attn.qkv_proj.weight"].split([48, 24, 24])
            groups = [torch.cat([q[12 * g :][:12], k[6 * g :][:6], v[6 * g :][:6]]) for g in range(4)]
            gate, up = tensors[f"model.layers.{layer}.mlp.gate_up_proj.weight"].split(56)
            part = slice(28 * rank, 28 * rank + 28)
            prefix = f"decoder.layers.{layer}."
            expected = torch.cat(groups[2 * rank : 2 * rank + 2])
            assert torch.equal(model[prefix + "self_attention.linear_qkv.weight"], expected)
            assert torch.equal(model[prefix + "mlp.linear_fc1.weight"], torch.cat([gate[part], up[part]]))


def test_biases_are_whole_but_those_of_queries_keys_values_and_head(tmp_path):
    tensors, _, shards = convert("phi3.5-moe", MIXTURE, tmp_path)
    for rank in range(2):
        model = shards[f"mp_rank_0{rank}"]["model"]
        assert torch.equal(model["decoder.final_layernorm.bias"], tensors["model.norm.bias"])
        assert torch.equal(model["output_layer.bias"], tensors["lm_head.bias"][45 * rank :][:45])
        for layer in range(4):
            source, prefix = f"model.layers.{layer}.", f"decoder.layers.{layer}."
            for name, key in (
                ("input_layernorm", "input_layernorm"),
                ("post_attention_layernorm", "pre_mlp_layernorm"),
                ("self_attn.o_proj", "self_attention.linear_proj"),
            ):
                assert torch.equal(model[f"{prefix}{key}.bias"], tensors[f"{source}{name}.bias"])
            q, k, v = (tensors[f"{source}self_attn.{part}_proj.bias"] for part in "qkv")
            groups = [torch.cat([q[12 * g :][:12], k[6 * g :][:6], v[6 * g :][:6]]) for g in range(4)]
            expected = torch.cat(groups[2 * rank : 2 * rank + 2])
            assert torch.equal(model[f"{prefix}self_attention.linear_qkv.bias"], expected)


def test_bias_of_the_head_is_padded_with_the_vocabulary(tmp_path):
    tensors, _, shards = convert("phi3.5-moe", MIXTURE, tmp_path, make_vocab_size_divisible_by=8)
    parts = [shards[f"mp_rank_0{rank}"]["model"]["output_layer.bias"] for rank in range(2)]
    expected = torch.cat([tensors["lm_head.bias"], torch.zeros(6, dtype=torch.bfloat16)])
    assert [len(part) for part in parts] == [48, 48]
    assert torch.equal(torch.cat(parts), expected)


def test_training_is_told_of_layer_norms_and_biases(tmp_path):
    _, conversion, shards = convert("phi3.5-moe", MIXTURE, tmp_path)
    args = vars(shards["mp_rank_00"]["args"])
    assert args["normalization"] == "LayerNorm"
    assert args["add_qkv_bias"] is args["add_dense_bias"] is args["add_output_layer_bias"] is args["moe_flag"] is True
    biases = {"--add-qkv-bias", "--add-dense-bias", "--add-output-layer-bias"}
    assert biases <= set(conversion.training_flags.split())
    assert "--normalization LayerNorm" in conversion.training_flags


def test_training_is_told_of_rotary_embeddings_for_long_contexts(tmp_path):
    _, conversion, _ = convert("phi3.5", LONG, tmp_path)
    for words in (
        "--rotary-percent 0.75",
        "--rope-scaling-type longrope",
        "--longrope-freqs-type outer",
        "--long-factor 1.08,1.14",
        "--short-factor 1.0,1.03",
        "--rope-scaling-original-max-position-embeddings 32",
    ):
        assert f" {words} " in f"{conversion.training_flags} ", words


def test_training_is_told_nothing_of_rotary_embeddings_that_are_plain(tmp_path):
    _, conversion, _ = convert("phi3.5", CONFIG, tmp_path)
    assert "--rope-" not in conversion.training_flags
    assert "--rotary-percent" not in conversion.training_flags


def test_norms_stand_in_the_modules_of_transformer_engine_that_follow_them(tmp_path):
    tensors, _, shards = convert("phi3.5", CONFIG, tmp_path, transformer_impl="transformer_engine")
    model = shards["mp_rank_01"]["model"]
    for name, key in (("input", "self_attention.linear_qkv"), ("post_attention", "mlp.linear_fc1")):
        expected = tensors[f"model.layers.2.{name}_layernorm.weight"]
        assert torch.equal(model[f"decoder.layers.2.{key}.layer_norm_weight"], expected)
