"""GLM: the contract for each model type, and what is special about the MTP layer, the types and the indexers."""

import json

import pytest
from transformers import Glm4MoeConfig, Glm4MoeForCausalLM, GlmMoeDsaConfig, GlmMoeDsaForCausalLM

from mscvt import MscvtError
from mscvt.testing import (
    Conventions,
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

GLM45 = {
    "model_type": "glm4_moe",
    "dtype": "bfloat16",
    "num_hidden_layers": 4,
    "num_nextn_predict_layers": 2,
    "hidden_size": 40,
    "intermediate_size": 56,
    "moe_intermediate_size": 14,
    "n_routed_experts": 8,
    "n_shared_experts": 3,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 3,
    "attention_bias": True,
    "use_qk_norm": True,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 20,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default", "partial_rotary_factor": 0.5},
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
AIR = {**GLM45, "first_k_dense_replace": 1, "use_qk_norm": False}
GLM5 = {
    "model_type": "glm_moe_dsa",
    "dtype": "bfloat16",
    "num_hidden_layers": 4,
    "num_nextn_predict_layers": 2,
    "hidden_size": 42,
    "intermediate_size": 56,
    "moe_intermediate_size": 14,
    "n_routed_experts": 8,
    "n_shared_experts": 3,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "head_dim": 4,
    "q_lora_rank": 22,
    "kv_lora_rank": 18,
    "qk_head_dim": 12,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 10,
    "index_n_heads": 2,
    "index_head_dim": 9,
    "index_topk": 7,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "indexer_types": ["full", "full", "shared", "full"],
}


class TestGlm45(FamilyContract):
    model_type = "glm45"
    config = GLM45
    real = Glm4MoeConfig, Glm4MoeForCausalLM


class TestGlm45Air(TestGlm45):
    model_type = "glm45-air"
    config = AIR
    cases = ("one_rank", "tp2_pp2_ep2_grouped", "tp2_pp2_mtp2", "tp2_ep2_transformer_engine_grouped", "three_layers")


class TestGlm45WithoutBiases(TestGlm45):
    config = {**GLM45, "attention_bias": False}
    cases = ("tp2_pp2_mtp2",)


class TestGlm5(FamilyContract):
    model_type = "glm5"
    config = GLM5
    real = GlmMoeDsaConfig, GlmMoeDsaForCausalLM
    conventions = Conventions(indexer_rope_interleave=True)
    not_saved = ("index_topk_freq", "index_skip_topk_offset")
    cases = ("one_rank", "pp2_noop", "three_layers", "tp2_mm_split", "tp2_pp2_ep2_grouped", "pp2_dualpipev_mtp2")
    options = {
        "tp2_pp2_virtual_stages_mtp2": Options(
            target_tensor_parallel_size=2,
            target_pipeline_parallel_size=2,
            num_layers_per_virtual_pipeline_stage=1,
            mtp_num_layers=2,
        ),
    }


class TestGlm5WithIndexersEverywhere(TestGlm5):
    config = {name: value for name, value in GLM5.items() if name != "indexer_types"} | {"index_topk_freq": 1}
    real = None  # which writes a list
    cases = ("tp2_mm_split",)
    options = {}


def save(folder, model_type, config, changes=None):
    tensors = source_tensors(load_registry().family(model_type), config) | (changes or {})
    save_huggingface(folder, config, tensors)
    return tensors


def args_in(mg):
    return vars(next(iter(shards_in(mg).values()))["args"])


INDEXERS = {
    "list": ({"indexer_types": ["full", "shared", "full", "shared", "shared", "full"]}, "fsfssf"),
    "frequency": ({"index_topk_freq": 4, "index_skip_topk_offset": 3}, "fffsss"),
    "frequency 2": ({"index_topk_freq": 2, "index_skip_topk_offset": 1}, "fsfsfs"),
    "pattern": ({"index_topk_pattern": "FFSSFS"}, "ffssfs"),
    "pattern as a list": ({"index_topk_pattern": ["full", "full", "full", "shared", "full", "full"]}, "fffsff"),
    "list before pattern and frequency": (
        {"indexer_types": ["full"] * 6, "index_topk_pattern": "FSSSSS", "index_topk_freq": 3},
        "ffffff",
    ),
    "nothing": ({}, "ffffff"),
}


@pytest.mark.parametrize(("said", "kinds"), INDEXERS.values(), ids=INDEXERS.keys())
def test_indexers_stand_where_transformers_has_them(said, kinds):
    config = {name: value for name, value in GLM5.items() if name != "indexer_types"} | {"num_hidden_layers": 6}
    layers = layers_of(load_registry().family("glm5"), config | said)
    assert ["f" if "indexer" in layer.kind else "s" for layer in layers] == [*kinds, "f", "f"]
    assert GlmMoeDsaConfig(**config, **said).indexer_types == [{"f": "full", "s": "shared"}[kind] for kind in kinds]


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (["full"] * 3, "indexer_types has 3 entries, expected one for each of 4 layers"),
        (["full", "full", "half", "full"], "expected full or shared for each, not 'half'"),
    ],
    ids=["too short", "unknown kind"],
)
def test_indexers_that_the_list_does_not_say_are_refused(said, says):
    with pytest.raises(MscvtError, match=says):
        layers_of(load_registry().family("glm5"), {**GLM5, "indexer_types": said})


def test_reduced_layers_keep_their_indexers_in_args_and_config(tmp_path):
    config = {
        **GLM5,
        "num_hidden_layers": 6,
        "indexer_types": ["full", "shared", "full", "full", "shared", "full"],
        "mlp_layer_types": ["dense", "dense", "dense", "sparse", "sparse", "sparse"],
    }
    save(tmp_path / "hf", "glm5", config)
    hf2mg(tmp_path / "hf", tmp_path / "mg", Options(num_layers=3, first_k_dense_replace=1, mtp_num_layers=1))
    assert args_in(tmp_path / "mg")["indexer_types"] == ["full", "full", "shared"]
    mg2hf(tmp_path / "mg", tmp_path / "back", hf_cfg_dir=tmp_path / "hf")
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (written["num_hidden_layers"], written["first_k_dense_replace"]) == (3, 1)
    assert written["indexer_types"] == ["full", "full", "shared"]
    assert written["mlp_layer_types"] == ["dense", "sparse", "sparse"]
    kept = {f"model.layers.{old}.": f"model.layers.{new}." for old, new in {0: 0, 3: 1, 4: 2, 6: 3}.items()}
    start = len("model.layers.0.")
    expected = {
        kept.get(name[:start], name[:start]) + name[start:]: what
        for name, what in contents_in(tmp_path / "hf").items()
        if not name.startswith("model.layers.") or name[:start] in kept
    }
    assert contents_in(tmp_path / "back") == expected


def test_type_is_told_from_the_dense_layers():
    registry = load_registry()
    for dense, name in ((0, "glm45"), (1, "glm45-air"), (3, "glm45")):
        assert registry.recognise({**GLM45, "first_k_dense_replace": dense}).model_type.name == name


def test_glm46_whose_mtp_layer_repeats_nothing_comes_back_as_it_was(tmp_path):
    copies = ("embed_tokens.weight", "shared_head.head.weight")
    tensors = source_tensors(load_registry().family("glm45"), GLM45)
    save_huggingface(
        tmp_path / "hf", GLM45, {n: t for n, t in tensors.items() if not (".layers." in n and n.endswith(copies))}
    )
    hf2mg(tmp_path / "hf", tmp_path / "mg", Options(mtp_num_layers=2, target_pipeline_parallel_size=2))
    mg2hf(tmp_path / "mg", tmp_path / "back")
    assert contents_in(tmp_path / "back") == contents_in(tmp_path / "hf")


def test_checkpoint_tells_training_of_biases_norms_and_rotation(tmp_path):
    for number, config in enumerate((GLM45, {**AIR, "attention_bias": False})):
        save(tmp_path / f"hf{number}", "glm45", config)
    flags = hf2mg(tmp_path / "hf0", tmp_path / "mg0").training_flags
    args = args_in(tmp_path / "mg0")
    assert args["add_qkv_bias"] is args["qk_layernorm"] is args["router_bias"] is True
    assert (args["rotary_percent"], args["kv_channels"], args["num_query_groups"]) == (0.5, 20, 4)
    assert {"--add-qkv-bias", "--qk-layernorm"} <= set(flags.split())
    assert " --rotary-percent 0.5 " in flags
    flags = hf2mg(tmp_path / "hf1", tmp_path / "mg1").training_flags
    args = args_in(tmp_path / "mg1")
    assert "add_qkv_bias" not in args
    assert args["qk_layernorm"] is False
    assert not {"--add-qkv-bias", "--qk-layernorm"} & set(flags.split())
    assert " --rotary-percent 0.5 " in flags


def test_checkpoint_tells_training_of_latent_attention_and_indexers(tmp_path):
    save(tmp_path / "hf", "glm5", GLM5)
    hf2mg(tmp_path / "hf", tmp_path / "mg")
    args = args_in(tmp_path / "mg")
    assert args["enable_dsa_indexer"] is args["multi_latent_attention"] is args["router_bias"] is True
    assert args["indexer_types"] == GLM5["indexer_types"]
    assert (args["qk_head_dim"], args["qk_pos_emb_head_dim"], args["v_head_dim"]) == (8, 4, 10)
    assert "kv_channels" not in args


def test_indexer_in_a_layer_that_shares_one_is_refused_by_name(tmp_path):
    name = "model.layers.2.self_attn.indexer.wk.weight"
    save(tmp_path / "hf", "glm5", GLM5, {name: content(name, (9, 42))})
    with pytest.raises(MscvtError, match=f"no rule takes: {name}$"):
        hf2mg(tmp_path / "hf", tmp_path / "mg")


NOOP = {"last": (5, False), "among the experts": (3, False), "among the dense": (1, True), "first": (0, True)}


@pytest.mark.parametrize(("slot", "is_said"), NOOP.values(), ids=NOOP.keys())
def test_noop_slots_before_dense_layers_are_said_to_be_counted_by_training(slot, is_said, tmp_path):
    config = {**GLM45, "num_hidden_layers": 5, "num_nextn_predict_layers": 0}
    save(tmp_path / "hf", "glm45", config)
    notes = hf2mg(tmp_path / "hf", tmp_path / "mg", Options(noop_layers=(slot,))).notes
    assert [f"--noop-layers {slot} it builds others" in note for note in notes] == [True] * is_said


@pytest.mark.parametrize(("slot", "layer"), [(4, None), (3, 3), (2, 2)])
def test_noop_slots_before_shared_indexers_are_said_to_be_counted_by_training(slot, layer, tmp_path):
    save(tmp_path / "hf", "glm5", {**GLM5, "num_nextn_predict_layers": 0})
    notes = hf2mg(tmp_path / "hf", tmp_path / "mg", Options(noop_layers=(slot,))).notes
    assert [note.endswith(f"for layer {layer} first") for note in notes] == [True] * (layer is not None)
