"""LongCat-Flash: the contract, two halves of a layer, zero experts, and what of a release is left out."""

import pytest
import torch
from transformers import LongcatFlashConfig, LongcatFlashForCausalLM

from mscvt import MscvtError
from mscvt.testing import (
    FamilyContract,
    Options,
    content,
    contents_in,
    hf2mg,
    load_registry,
    mg2hf,
    random_reference,
    save_huggingface,
    shards_in,
    source_tensors,
)

CONFIG = {
    "model_type": "longcat_flash",
    "dtype": "bfloat16",
    "num_layers": 4,
    "hidden_size": 42,
    "ffn_hidden_size": 56,
    "expert_ffn_hidden_size": 14,
    "n_routed_experts": 8,
    "zero_expert_num": 3,
    "moe_topk": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "kv_lora_rank": 18,
    "q_lora_rank": 22,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "head_dim": 4,
    "v_head_dim": 10,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
PUBLIC = {name: value for name, value in CONFIG.items() if name not in ("num_key_value_heads", "head_dim")}


class TestLongcat(FamilyContract):
    whole = ("mlp.router.weight", *(f"self_attention_{half}.linear_qkv.weight" for half in (0, 1)))
    model_type = "longcat"
    config = CONFIG


class TestReleasedConfiguration(TestLongcat):
    """Releases don't say how many key heads there are, and count attentions as `num_hidden_layers` if at all."""

    config = {**PUBLIC, "num_hidden_layers": 8, "mla_scale_q_lora": True, "router_bias": False}
    cases = ("tp2_pp2_ep2_grouped",)


class TestWithoutZeroExperts(TestLongcat):
    """The real class reads its own files alone where there are zero experts: it takes matrices for them for granted."""

    real = LongcatFlashConfig, LongcatFlashForCausalLM
    not_computed = "a layer has two attentions"
    not_saved = ("mla_scale_q_lora", "mla_scale_kv_lora")
    config = {**CONFIG, "zero_expert_num": 0}
    cases = ("tp2_ep2",)


def converted(folder, options=None, more=None):
    """Convert a source that has these tensors besides its own; returns it, the conversion and the model's shards."""
    tensors = source_tensors(load_registry().family("longcat"), CONFIG)
    save_huggingface(folder / "hf", CONFIG, tensors | (more or {}))
    conversion = hf2mg(folder / "hf", folder / "mg", options)
    return tensors, conversion, {rank: shard["model"] for rank, shard in shards_in(folder / "mg").items()}


def test_both_halves_of_a_layer_are_laid_out_and_cut_as_usual(tmp_path):
    hf, _, shards = converted(tmp_path, Options(target_tensor_parallel_size=2))
    second = shards["mp_rank_01"]
    for k in (0, 1):
        attention, mlp = f"model.layers.2.self_attn.{k}.", f"model.layers.2.mlps.{k}."
        q_down, kv_down = (hf[f"{attention}{name}.weight"] for name in ("q_a_proj", "kv_a_proj_with_mqa"))
        ours = f"decoder.layers.2.self_attention_{k}."
        assert torch.equal(second[ours + "linear_qkv.weight"], torch.cat([q_down, kv_down]))
        assert torch.equal(second[ours + "linear_q_up_proj.weight"], hf[attention + "q_b_proj.weight"][36:])
        assert torch.equal(second[ours + "linear_proj.weight"], hf[attention + "o_proj.weight"][:, 30:])
        gate, up = (hf[f"{mlp}{name}_proj.weight"][28:] for name in ("gate", "up"))
        assert torch.equal(second[f"decoder.layers.2.mlps_{k}.linear_fc1.weight"], torch.cat([gate, up]))
        norm = hf[f"model.layers.2.post_attention_layernorm.{k}.weight"]
        assert torch.equal(second[f"decoder.layers.2.pre_mlp_layernorm_{k}.weight"], norm)


def test_router_has_rows_for_zero_experts_and_is_the_same_on_all_ranks(tmp_path):
    hf, _, shards = converted(tmp_path, Options(target_tensor_parallel_size=2, target_expert_parallel_size=2))
    assert len(shards) == 4
    for shard in shards.values():
        weight, bias = (shard[f"decoder.layers.1.mlp.router.{name}"] for name in ("weight", "expert_bias"))
        assert torch.equal(weight, hf["model.layers.1.mlp.router.classifier.weight"])
        assert torch.equal(bias, hf["model.layers.1.mlp.router.e_score_correction_bias"])
        assert (weight.shape, bias.dtype) == ((11, 42), torch.float32)
        experts = {key.split(".")[6] for key in shard if "local_experts" in key}
        assert experts == {"0", "1", "2", "3"}


def test_split_up_projections_are_split_in_both_attentions(tmp_path):
    hf, _, shards = converted(tmp_path, Options(mla_mm_split=True))
    query = hf["model.layers.0.self_attn.1.q_b_proj.weight"].view(6, 12, 22)
    expected = query[:, :8].reshape(48, 22)
    assert torch.equal(shards["mp_rank_00"]["decoder.layers.0.self_attention_1.linear_qk_nope.weight"], expected)


def test_transformer_engine_renames_grouped_experts_alone(tmp_path):
    options = Options(transformer_impl="transformer_engine", moe_grouped_gemm=True)
    _, _, shards = converted(tmp_path, options)
    keys = {key.removeprefix("decoder.layers.0.") for key in shards["mp_rank_00"]}
    norms = {f"{norm}_{k}.weight" for norm in ("input_layernorm", "pre_mlp_layernorm") for k in (0, 1)}
    assert norms | {"mlp.experts.linear_fc1.weight7"} <= keys
    assert not [key for key in keys if "layer_norm_weight" in key]


def test_mtp_of_a_release_is_left_out_and_reported(tmp_path):
    name = "model.mtp.layers.0.eh_proj.weight"
    _, conversion, _ = converted(tmp_path, more={name: content(name, (42, 84))})
    assert conversion.plan.left_out == {name: "models of this type are trained without MTP layers"}


def test_matrices_of_zero_experts_are_left_out_and_do_not_come_back(tmp_path):
    random_reference(CONFIG, tmp_path / "hf", real=(LongcatFlashConfig, LongcatFlashForCausalLM))
    hf2mg(tmp_path / "hf", tmp_path / "mg")
    mg2hf(tmp_path / "mg", tmp_path / "back")
    written, back = contents_in(tmp_path / "hf"), contents_in(tmp_path / "back")
    name = "model.layers.{}.mlp.experts.{}.{}_proj.weight"
    missing = {name.format(layer, e, part) for layer in range(4) for e in (8, 9, 10) for part in ("gate", "up")}
    assert back == {name: what for name, what in written.items() if name not in missing}
    assert written.keys() - back.keys() == missing


def test_matrices_of_zero_experts_are_reported(tmp_path):
    name = "model.layers.0.mlp.experts.10.up_proj.weight"
    _, conversion, _ = converted(tmp_path, more={name: torch.ones(14, 42)})
    assert conversion.plan.left_out == {name: "zero experts have no weights"}


@pytest.mark.parametrize("name", ["mlp.experts.11.gate_proj.weight", "mlp.experts.9.down_proj.weight"])
def test_experts_that_are_not_there_are_refused(name, tmp_path):
    with pytest.raises(MscvtError, match=f"no rule takes: model.layers.0.{name}"):
        converted(tmp_path, more={f"model.layers.0.{name}": torch.ones(14, 42)})


def test_args_say_what_training_asks_for(tmp_path):
    converted(tmp_path)
    args = vars(shards_in(tmp_path / "mg")["mp_rank_00"]["args"])
    expected = {"num_experts": 8, "num_zero_experts": 3, "transformerlayer_type": "longcat", "router_bias": True}
    expected |= {"multi_latent_attention": True, "qk_layernorm": True, "first_k_dense_replace": 0, "qk_head_dim": 8}
    assert {name: args[name] for name in expected} == expected


def test_experts_are_weighed_by_the_softmax_of_all_scores_though_they_have_a_bias(tmp_path):
    _, conversion, _ = converted(tmp_path)
    assert " --moe-router-enable-expert-bias " in conversion.training_flags
    assert " --moe-router-score-function softmax --moe-router-pre-softmax" in conversion.training_flags
