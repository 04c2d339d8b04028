"""DeepSeek: the contract for each model type, and what is special about V2-Lite, MTP and the indexer."""

from argparse import Namespace

import pytest
import torch
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    DeepseekV32Config,
    DeepseekV32ForCausalLM,
)

from mscvt import MscvtError
from mscvt.formats.huggingface.config import read_config
from mscvt.formats.huggingface.reader import HuggingFaceSource
from mscvt.jobs.conversion import Settings, run_conversion
from mscvt.jobs.prepare import Request, prepare_to_huggingface, prepare_to_megatron
from mscvt.model.hyperparameters import hyperparameters
from mscvt.model.options import Options
from mscvt.plugins.registry import load_registry
from mscvt.testing import FamilyContract, content, save_huggingface, shapes_in, source_shapes, source_tensors

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


class TestV32(TestV3):
    model_type = "deepseek32"
    config = V32
    cases = ("one_rank", "tp2_mm_split", "tp2_pp2_ep2_grouped", "tp2_pp2_mtp2", "pp2_dualpipev_mtp2")


class TestV2(TestV3):
    model_type = "deepseek2"
    config = V2
    cases = ("one_rank", "tp2_mm_split", "tp2_pp2_ep2_grouped", "tp2_ep2_transformer_engine_grouped")


class TestV2Lite(TestV2):
    model_type = "deepseek2-lite"
    config = V2_LITE


class TestV2LiteWithoutQueryRank(TestV2Lite):
    config = V2_LITE_UNSAID
    cases = ("one_rank",)


REAL = {
    "deepseek2": (DeepseekV2Config, DeepseekV2ForCausalLM, V2),
    "deepseek2-lite": (DeepseekV2Config, DeepseekV2ForCausalLM, V2_LITE),
    "deepseek3": (DeepseekV3Config, DeepseekV3ForCausalLM, V3),
    "deepseek32": (DeepseekV32Config, DeepseekV32ForCausalLM, V32),
}


@pytest.mark.parametrize("dense", [0, 1, 3])
@pytest.mark.parametrize("model_type", REAL)
def test_names_shapes_and_sizes_are_those_of_transformers(model_type, dense, tmp_path):
    """Transformers has no MTP layers, so the model is made without them."""
    config_class, model_class, config = REAL[model_type]
    config = {**config, "first_k_dense_replace": dense}
    if "num_nextn_predict_layers" in config:
        config["num_nextn_predict_layers"] = 0
    model_class(config_class(**config)).save_pretrained(tmp_path)
    registry, written = load_registry(), read_config(tmp_path)
    family = registry.recognise(written)
    assert family.model_type.name == model_type
    assert shapes_in(tmp_path) == source_shapes(family, written)
    values = hyperparameters(written, family.model_type, "written")
    assert values == hyperparameters(config, family.model_type, "config")


def test_experts_stand_in_every_layer_that_the_frequency_divides():
    """The rule of DeepSeek's own modeling code: `first_k_dense_replace` layers, then `idx % moe_layer_freq == 0`."""
    family = load_registry().family("deepseek2")
    config = {**V2, "num_hidden_layers": 8, "first_k_dense_replace": 3, "moe_layer_freq": 2}
    values = hyperparameters(config, family.model_type, "config")
    kinds = [layer.kind for layer in family.call("mscvt_layers", hyperparameters=values)]
    assert kinds == ["dense"] * 4 + ["moe", "dense", "moe", "dense"]


EMBEDDING = "model.layers.{}.embed_tokens.weight"
HEAD = "model.layers.{}.shared_head.head.weight"
ALIASES = [name.format(layer) for layer in (4, 5) for name in (EMBEDDING, HEAD)]


def v3_source(folder, changes, without=()):
    registry = load_registry()
    tensors = source_tensors(registry.family("deepseek3"), V3) | changes
    kept = {name: tensor for name, tensor in tensors.items() if name not in without}
    save_huggingface(folder, V3, kept)
    return prepare_to_megatron(Request(folder, Options(mtp_num_layers=2)), registry), tensors


def test_source_without_the_repeated_embedding_and_head_gets_them_on_the_way_back(tmp_path):
    there, whole = v3_source(tmp_path / "hf", {}, without=ALIASES)
    run_conversion(there, tmp_path / "mg", Settings())
    back = prepare_to_huggingface(Request(tmp_path / "mg", Options()), load_registry())
    run_conversion(back, tmp_path / "back", Settings())
    assert shapes_in(tmp_path / "back") == {name: tuple(tensor.shape) for name, tensor in whole.items()}
    read = HuggingFaceSource(tmp_path / "back").tensor
    for name in ALIASES:
        expected = whole[name]
        found = read(name).region(0, tuple(expected.shape), expected.stride())
        assert torch.equal(found.view(torch.int16), expected.view(torch.int16))


@pytest.mark.parametrize("alias", ALIASES)
def test_repeated_tensor_that_differs_is_refused_by_name(alias, tmp_path):
    original = "model.embed_tokens.weight" if "embed" in alias else "lm_head.weight"
    there, _ = v3_source(tmp_path / "hf", {alias: content("another", (90, 42))})
    with pytest.raises(MscvtError, match=f"{alias} differs from {original}"):
        run_conversion(there, tmp_path / "mg", Settings())
    assert not (tmp_path / "mg").exists()


def test_dtype_leaves_the_router_bias_and_the_norm_of_the_indexer_in_float32(tmp_path):
    registry = load_registry()
    family = registry.family("deepseek32")
    save_huggingface(tmp_path, V32, source_tensors(family, V32))
    plan = prepare_to_megatron(Request(tmp_path, Options(mtp_num_layers=2), dtype="fp16"), registry).plan
    dtypes = {name[2]: dtype for file in plan.files for name, (dtype, _) in file.tensors.items()}
    kept = {key.partition("layers.")[2][2:] for key, dtype in dtypes.items() if dtype == "F32"}
    assert set(dtypes.values()) == {"F16", "F32"}
    prefixes = ("", "transformer_layer.")
    norm = "self_attention.dsa_indexer.k_norm"
    keys = ("mlp.router.expert_bias", f"{norm}.weight", f"{norm}.bias")
    assert kept == {prefix + key for prefix in prefixes for key in keys}


def test_checkpoint_tells_training_of_latent_attention_and_indexer(tmp_path):
    registry = load_registry()
    save_huggingface(tmp_path / "hf", V32, source_tensors(registry.family("deepseek32"), V32))
    run_conversion(prepare_to_megatron(Request(tmp_path / "hf", Options()), registry), tmp_path / "mg", Settings())
    with torch.serialization.safe_globals([Namespace]):
        (path,) = tmp_path.glob("mg/*/*/model_optim_rng.pt")
        args = vars(torch.load(path, weights_only=True)["args"])
    assert args["enable_dsa_indexer"] is args["multi_latent_attention"] is args["router_bias"] is True
    assert (args["q_lora_rank"], args["kv_lora_rank"], args["n_shared_experts"]) == (22, 18, 3)
