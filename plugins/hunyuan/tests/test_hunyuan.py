"""Tencent Hy3: the contract, which layers are dense, and what an MTP layer may repeat."""

import pytest
from transformers import HYV3Config, HYV3ForCausalLM

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

CONFIG = {
    "model_type": "hy_v3",
    "dtype": "bfloat16",
    "num_hidden_layers": 4,
    "num_nextn_predict_layers": 2,
    "hidden_size": 40,
    "intermediate_size": 56,
    "moe_intermediate_size": 14,
    "num_experts": 8,
    "num_shared_experts": 3,
    "num_experts_per_tok": 2,
    "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 6,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
COUNTED = {name: value for name, value in CONFIG.items() if name != "mlp_layer_types"} | {"first_k_dense_replace": 1}
FAMILY = "HYV3"


class TestHy3(FamilyContract):
    model_type = FAMILY
    config = CONFIG
    real = HYV3Config, HYV3ForCausalLM


class TestHy3WithCountedDenseLayers(TestHy3):
    real = None
    config = COUNTED | {"first_k_dense_replace": 2}
    cases = ("tp2_pp2_mtp2",)


KINDS = {
    "counted": (COUNTED, "dmmm"),
    "listed": ({**CONFIG, "mlp_layer_types": ["dense", "dense", "sparse", "sparse"]}, "ddmm"),
    "listed and counted": ({**COUNTED, "mlp_layer_types": ["sparse"] * 4}, "mmmm"),
}


@pytest.mark.parametrize(("config", "kinds"), KINDS.values(), ids=KINDS.keys())
def test_layers_with_experts_are_those_of_config(config, kinds):
    layers = layers_of(load_registry().family(FAMILY), config)
    assert [(layer.kind, layer.mtp) for layer in layers] == [
        *(({"d": DENSE, "m": MOE}[kind], None) for kind in kinds),
        (MOE, 0),
        (MOE, 1),
    ]


@pytest.mark.parametrize("kinds", [["dense", "sparse", "dense", "sparse"], ["sparse", "other", "sparse", "sparse"]])
def test_layers_that_training_could_not_build_are_refused(kinds):
    with pytest.raises(MscvtError, match="mlp_layer_types has something else than dense layers, then sparse ones"):
        layers_of(load_registry().family(FAMILY), {**CONFIG, "mlp_layer_types": kinds})


HEAD = "model.layers.4.shared_head.weight"


def save(folder, changes=None):
    tensors = source_tensors(load_registry().family(FAMILY), CONFIG) | (changes or {})
    save_huggingface(folder, CONFIG, tensors)


@pytest.mark.parametrize("depth", [0, 2])
def test_repeated_head_is_left_out_and_said_so(depth, tmp_path):
    save(tmp_path / "whole")
    save(tmp_path / "hf", {HEAD: content("lm_head.weight", (90, 40))})
    notes = hf2mg(tmp_path / "hf", tmp_path / "mg", Options(mtp_num_layers=depth)).notes
    assert any(HEAD in note if depth else "MTP layers not asked for" in note for note in notes)
    mg2hf(tmp_path / "mg", tmp_path / "back")
    expected = contents_in(tmp_path / "whole")
    kept = {
        name: what
        for name, what in expected.items()
        if depth or not name.startswith(("model.layers.4.", "model.layers.5."))
    }
    assert contents_in(tmp_path / "back") == kept


def test_repeated_head_that_differs_is_refused_by_name(tmp_path):
    save(tmp_path / "hf", {HEAD: content("another", (90, 40))})
    with pytest.raises(MscvtError, match=f"{HEAD} differs from lm_head.weight"):
        hf2mg(tmp_path / "hf", tmp_path / "mg", Options(mtp_num_layers=2))


def test_transformer_engine_is_refused_by_name(tmp_path):
    save(tmp_path / "hf")
    said = "--transformer-impl transformer_engine: HYV3 models are trained with local modules alone"
    with pytest.raises(MscvtError, match=said):
        hf2mg(tmp_path / "hf", tmp_path / "mg", Options(transformer_impl="transformer_engine"))


def test_reduced_layers_are_dense_as_config_lists_them(tmp_path):
    config = {**CONFIG, "mlp_layer_types": ["dense", "dense", "sparse", "sparse"]}
    save_huggingface(tmp_path / "hf", config, source_tensors(load_registry().family(FAMILY), config))
    hf2mg(tmp_path / "hf", tmp_path / "mg", Options(num_layers=3, first_k_dense_replace=1))
    mg2hf(tmp_path / "mg", tmp_path / "back", hf_cfg_dir=tmp_path / "hf")
    model = HYV3ForCausalLM.from_pretrained(tmp_path / "back")
    assert model.config.mlp_layer_types == ["dense", "sparse", "sparse"]


def test_checkpoint_tells_training_of_experts_and_norms(tmp_path):
    save(tmp_path / "hf")
    hf2mg(tmp_path / "hf", tmp_path / "mg")
    (shard,) = shards_in(tmp_path / "mg").values()
    args = vars(shard["args"])
    assert args["qk_layernorm"] is args["router_bias"] is args["group_query_attention"] is True
    assert (args["n_shared_experts"], args["moe_intermediate_size"], args["moe_layer_freq"]) == (3, 14, 1)
    assert (args["first_k_dense_replace"], args["kv_channels"], args["rotary_base"]) == (1, 6, 5000.0)
