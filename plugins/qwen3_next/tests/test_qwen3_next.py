"""Qwen3-Next: the contract, which layers have full attention, that nothing is packed, and MTP."""

import pytest
import torch
from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

from mscvt import MscvtError
from mscvt.testing import (
    FamilyContract,
    Options,
    contents_in,
    hf2mg,
    layers_of,
    load_registry,
    mg2hf,
    save_huggingface,
    shards_in,
    source_tensors,
)

LINEAR, FULL = "linear_attention", "full_attention"
CONFIG = {
    "model_type": "qwen3_next",
    "dtype": "bfloat16",
    "num_hidden_layers": 4,
    "layer_types": [LINEAR, FULL, LINEAR, FULL],
    "hidden_size": 40,
    "intermediate_size": 56,
    "moe_intermediate_size": 14,
    "shared_expert_intermediate_size": 26,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 10,
    "linear_conv_kernel_dim": 3,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default", "partial_rotary_factor": 0.25},
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
BY_INTERVAL = {name: value for name, value in CONFIG.items() if name != "layer_types"} | {"full_attention_interval": 3}
FAMILY = "qwen3-next"


class TestQwen3Next(FamilyContract):
    whole = tuple(
        f"self_attention.{name}.weight"
        for name in ("conv1d", "in_proj_qkvz", "in_proj_ba", "out_proj", "q_proj", "k_proj", "v_proj")
    )
    model_type = FAMILY
    config = CONFIG
    real = Qwen3NextConfig, Qwen3NextForCausalLM
    not_computed = "most layers have linear attention"
    options = {
        "ep2_mtp1": Options(target_expert_parallel_size=2, mtp_num_layers=1),
        "pp2_mtp1": Options(target_pipeline_parallel_size=2, mtp_num_layers=1, moe_grouped_gemm=True),
        "pp2_dualpipev_mtp1": Options(target_pipeline_parallel_size=2, schedules_method="dualpipev", mtp_num_layers=1),
        "pp2_virtual_stages_ep4": Options(
            target_pipeline_parallel_size=2,
            num_layers_per_virtual_pipeline_stage=1,
            target_expert_parallel_size=4,
            moe_grouped_gemm=True,
        ),
    }


class TestQwen3NextByInterval(TestQwen3Next):
    config = BY_INTERVAL
    cases = ("ep4_grouped",)
    options = {}
    real = None


def save(folder, config=CONFIG, without=()):
    tensors = source_tensors(load_registry().family(FAMILY), config)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(without)} if without else tensors
    save_huggingface(folder, config, kept)
    return kept


KINDS = {
    "listed": (CONFIG, "lflf"),
    "interval": (BY_INTERVAL, "llfl"),
    "interval of the public model": ({**BY_INTERVAL, "full_attention_interval": None}, "lllf"),
    "listed and interval": ({**CONFIG, "full_attention_interval": 4}, "lflf"),
}


@pytest.mark.parametrize(("config", "kinds"), KINDS.values(), ids=KINDS.keys())
def test_full_attention_stands_where_config_says(config, kinds):
    layers = layers_of(load_registry().family(FAMILY), config)
    assert [layer.kind[0] for layer in layers] == [
        *({"l": "delta", "f": "attention"}[kind] for kind in kinds),
        "attention",
    ]


@pytest.mark.parametrize(
    ("kinds", "says"),
    [
        ([LINEAR, FULL, LINEAR], "layer_types has 3 entries, expected one for each of 4 layers"),
        ([LINEAR, FULL, "sliding_attention", FULL], "or linear_attention for each, not 'sliding_attention'"),
    ],
    ids=["too short", "unknown kind"],
)
def test_kinds_that_the_list_does_not_say_are_refused(kinds, says):
    with pytest.raises(MscvtError, match=says):
        layers_of(load_registry().family(FAMILY), {**CONFIG, "layer_types": kinds})


def test_attention_is_neither_packed_nor_cut(tmp_path):
    tensors = save(tmp_path / "hf")
    hf2mg(tmp_path / "hf", tmp_path / "mg")
    (shard,) = shards_in(tmp_path / "mg").values()
    start = "decoder.layers.{}.self_attention."
    taken = {
        start.format(0) + key: f"model.layers.0.linear_attn.{name}"
        for key, name in {
            "A_log": "A_log",
            "dt_bias": "dt_bias",
            "conv1d.weight": "conv1d.weight",
            "in_proj_ba.weight": "in_proj_ba.weight",
            "in_proj_qkvz.weight": "in_proj_qkvz.weight",
            "norm.weight": "norm.weight",
            "out_proj.weight": "out_proj.weight",
        }.items()
    } | {
        start.format(1) + key: f"model.layers.1.self_attn.{name}"
        for key, name in {
            "q_proj.weight": "q_proj.weight",
            "k_proj.weight": "k_proj.weight",
            "v_proj.weight": "v_proj.weight",
            "linear_proj.weight": "o_proj.weight",
            "q_layernorm.weight": "q_norm.weight",
            "k_layernorm.weight": "k_norm.weight",
        }.items()
    }
    found = {
        key: tensor for key, tensor in shard["model"].items() if key.startswith((start.format(0), start.format(1)))
    }
    assert found.keys() == taken.keys()
    for key, name in taken.items():
        assert torch.equal(found[key], tensors[name]), key


def test_source_without_mtp_converts_and_can_not_give_any(tmp_path):
    save(tmp_path / "hf", without="mtp.")
    assert hf2mg(tmp_path / "hf", tmp_path / "mg").notes == ()
    mg2hf(tmp_path / "mg", tmp_path / "back")
    assert contents_in(tmp_path / "back") == contents_in(tmp_path / "hf")
    with pytest.raises(MscvtError) as caught:
        hf2mg(tmp_path / "hf", tmp_path / "mg1", Options(mtp_num_layers=1))
    assert "missing: mtp.fc.weight" in caught.value.faults
    with pytest.raises(MscvtError, match="--mtp-num-layers 2: the model has 1 MTP layers"):
        hf2mg(tmp_path / "hf", tmp_path / "mg2", Options(mtp_num_layers=2))


def test_mtp_of_a_reduced_model_keeps_its_names(tmp_path):
    save(tmp_path / "hf")
    hf2mg(tmp_path / "hf", tmp_path / "mg", Options(num_layers=2, mtp_num_layers=1))
    mg2hf(tmp_path / "mg", tmp_path / "back")
    dropped = ("model.layers.2.", "model.layers.3.")
    expected = {name: what for name, what in contents_in(tmp_path / "hf").items() if not name.startswith(dropped)}
    assert contents_in(tmp_path / "back") == expected


REFUSED = {
    "--target-tensor-parallel-size 2": Options(target_tensor_parallel_size=2),
    "--moe-tp-extend-ep": Options(moe_tp_extend_ep=True),
    "--transformer-impl transformer_engine": Options(transformer_impl="transformer_engine"),
}


@pytest.mark.parametrize(("said", "options"), REFUSED.items(), ids=REFUSED.keys())
def test_options_that_training_does_not_have_are_refused_by_name(said, options, tmp_path):
    save(tmp_path / "hf")
    with pytest.raises(MscvtError, match=f"{said}: qwen3-next models are trained with "):
        hf2mg(tmp_path / "hf", tmp_path / "mg", options)


@pytest.mark.parametrize(("config", "interval"), [(CONFIG, 2), (BY_INTERVAL, 3)], ids=["listed", "interval"])
def test_checkpoint_tells_training_of_both_kinds_of_attention(config, interval, tmp_path):
    save(tmp_path / "hf", config)
    flags = hf2mg(tmp_path / "hf", tmp_path / "mg").training_flags
    (shard,) = shards_in(tmp_path / "mg").values()
    args = vars(shard["args"])
    assert (args["full_attention_interval"], args["n_shared_experts"], args["qkv_type"]) == (interval, 1, "mix")
    assert (args["linear_num_key_heads"], args["linear_value_head_dim"], args["kv_channels"]) == (2, 10, 12)
    assert args["shared_expert_gate"] is args["add_rmsnorm_offset"] is args["qk_layernorm"] is True
    assert (args["partial_rotary_factor"], args["first_k_dense_replace"], args["num_query_groups"]) == (0.25, 0, 2)
    assert f"--full-attention-interval {interval} --linear-key-head-dim 8" in flags
    assert flags.endswith("--partial-rotary-factor 0.25 --no-enable-linear-qkv --add-rmsnorm-offset")
