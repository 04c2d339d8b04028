"""DeepSeek: the contract for each model type, and what is special about V2-Lite, MTP and the indexer."""

import pytest
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    DeepseekV32Config,
    DeepseekV32ForCausalLM,
)

from mscvt import DENSE, MOE, MscvtError
from mscvt.testing import (
    FamilyContract,
    Options,
    content,
    contents_in,
    hf2mg,
    layers_of,
    load_registry,
    mg2hf,
    save_huggingface,
    shards_in,
    source_tensors,
)

V3 = {
    "model_type": "deepseek_v3",
    "dtype": "bfloat16",
    "num_hidden_layers": 4,
    "num_nextn_predict_layers": 2,
    "hidden_size": 42,
    "intermediate_size": 56,
    "moe_intermediate_size": 14,
    "n_routed_experts": 8,
    "n_shared_experts": 3,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "kv_lora_rank": 18,
    "q_lora_rank": 22,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 10,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
V32 = {**V3, "model_type": "deepseek_v32", "index_n_heads": 2, "index_head_dim": 6, "index_topk": 7}
V2 = {name: value for name, value in V3.items() if name != "num_nextn_predict_layers"} | {"model_type": "deepseek_v2"}
V2_LITE = {**V2, "q_lora_rank": None}
V2_LITE_UNSAID = {name: value for name, value in V2.items() if name != "q_lora_rank"}


class TestV3(FamilyContract):
    model_type = "deepseek3"
    config = V3
    real = DeepseekV3Config, DeepseekV3ForCausalLM
    not_saved = ("moe_layer_freq",)


class TestV32(TestV3):
    model_type = "deepseek32"
    config = V32
    whole = tuple(f"self_attention.dsa_indexer.{name}.weight" for name in ("weights_proj", "wk", "wq_b"))
    real = DeepseekV32Config, DeepseekV32ForCausalLM
    cases = ("one_rank", "tp2_mm_split", "tp2_pp2_ep2_grouped", "tp2_pp2_mtp2", "pp2_dualpipev_mtp2")


class TestV2(TestV3):
    model_type = "deepseek2"
    config = V2
    real = DeepseekV2Config, DeepseekV2ForCausalLM
    cases = ("one_rank", "tp2_mm_split", "tp2_pp2_ep2_grouped", "tp2_ep2_transformer_engine_grouped")


class TestV2Lite(TestV2):
    model_type = "deepseek2-lite"
    config = V2_LITE
    options = {"megatron_0.18": Options(dialect="megatron", megatron_core_version="0.18")}


class TestV2LiteWithoutQueryRank(TestV2Lite):
    config = V2_LITE_UNSAID
    real = None  # the class makes a query of rank 1536 where the configuration says none
    cases = ("one_rank",)


class TestV3WithoutDenseLayers(TestV3):
    config = {**V3, "first_k_dense_replace": 0}
    cases = ("tp2_ep2",)


class TestV3WithOneExpertLayer(TestV3):
    config = {**V3, "first_k_dense_replace": 3}
    cases = ("tp2_ep2",)


def test_experts_stand_in_every_layer_that_the_frequency_divides():
    """The rule of DeepSeek's own modeling code: `first_k_dense_replace` layers, then `idx % moe_layer_freq == 0`."""
    family = load_registry().family("deepseek2")
    config = {**V2, "num_hidden_layers": 8, "first_k_dense_replace": 3, "moe_layer_freq": 2}
    kinds = [layer.kind for layer in layers_of(family, config)]
    assert kinds == [DENSE] * 4 + [MOE, DENSE, MOE, DENSE]


EMBEDDING = "model.layers.{}.embed_tokens.weight"
HEAD = "model.layers.{}.shared_head.head.weight"
ALIASES = [name.format(layer) for layer in (4, 5) for name in (EMBEDDING, HEAD)]


def v3_source(folder, changes, without=()):
    """Write a source with other bytes, or without some tensors; returns what there is."""
    tensors = source_tensors(load_registry().family("deepseek3"), V3) | changes
    kept = {name: tensor for name, tensor in tensors.items() if name not in without}
    save_huggingface(folder, V3, kept)
    return kept


@pytest.mark.parametrize("absent", [ALIASES, ALIASES[:1]], ids=["all", "one"])
def test_repeated_tensors_that_the_source_lacks_do_not_come_back(absent, tmp_path):
    kept = v3_source(tmp_path / "hf", {}, without=absent)
    hf2mg(tmp_path / "hf", tmp_path / "mg", Options(mtp_num_layers=2))
    mg2hf(tmp_path / "mg", tmp_path / "back")
    assert contents_in(tmp_path / "back") == contents_in(tmp_path / "hf")
    assert contents_in(tmp_path / "back").keys() == kept.keys()


@pytest.mark.parametrize("alias", ALIASES)
def test_repeated_tensor_that_differs_is_refused_by_name(alias, tmp_path):
    original = "model.embed_tokens.weight" if "embed" in alias else "lm_head.weight"
    v3_source(tmp_path / "hf", {alias: content("another", (90, 42))})
    with pytest.raises(MscvtError, match=f"{alias} differs from {original}"):
        hf2mg(tmp_path / "hf", tmp_path / "mg", Options(mtp_num_layers=2))
    assert not (tmp_path / "mg").exists()


def test_dtype_leaves_the_router_bias_and_the_norm_of_the_indexer_in_float32(tmp_path):
    save_huggingface(tmp_path / "hf", V32, source_tensors(load_registry().family("deepseek32"), V32))
    plan = hf2mg(tmp_path / "hf", tmp_path / "mg", Options(mtp_num_layers=2), dtype="fp16").plan
    dtypes = {name[2]: dtype for file in plan.files for name, (dtype, _) in file.tensors.items()}
    kept = {key.partition("layers.")[2][2:] for key, dtype in dtypes.items() if dtype == "F32"}
    assert set(dtypes.values()) == {"F16", "F32"}
    prefixes = ("", "transformer_layer.")
    norm = "self_attention.dsa_indexer.k_norm"
    keys = ("mlp.router.expert_bias", f"{norm}.weight", f"{norm}.bias")
    assert kept == {prefix + key for prefix in prefixes for key in keys}


def test_checkpoint_tells_training_of_latent_attention_and_indexer(tmp_path):
    save_huggingface(tmp_path / "hf", V32, source_tensors(load_registry().family("deepseek32"), V32))
    hf2mg(tmp_path / "hf", tmp_path / "mg")
    (shard,) = shards_in(tmp_path / "mg").values()
    args = vars(shard["args"])
    assert args["enable_dsa_indexer"] is args["multi_latent_attention"] is args["router_bias"] is True
    assert (args["q_lora_rank"], args["kv_lora_rank"], args["n_shared_experts"]) == (22, 18, 3)
