"""DeepSeek-V4: the contract, cuts, tables of experts, MTP with and without repeated tensors, and drafters."""

import json

import pytest
import torch

from mscvt import MscvtError
from mscvt.jobs.conversion import Settings, run_conversion
from mscvt.jobs.prepare import prepare_to_megatron
from mscvt.jobs.request import Request
from mscvt.testing import (
    FamilyContract,
    Options,
    content,
    contents_in,
    layers_of,
    load_registry,
    mg2hf,
    save_huggingface,
    shards_in,
    source_tensors,
)

CONFIG = {
    "model_type": "deepseek_v4",
    "dtype": "bfloat16",
    "num_hidden_layers": 4,
    "num_nextn_predict_layers": 2,
    "compress_ratios": [0, 4, 128, 4, 0, 0],
    "num_hash_layers": 2,
    "hidden_size": 42,
    "moe_intermediate_size": 14,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 10,
    "q_lora_rank": 22,
    "o_lora_rank": 6,
    "o_groups": 4,
    "hc_mult": 2,
    "index_n_heads": 5,
    "index_head_dim": 9,
    "vocab_size": 90,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
BASE = {**CONFIG, "expert_dtype": "fp8"}
REPEATED = {f"mtp.{m}.{name}" for m in (0, 1) for name in ("emb.tok_emb.weight", "head.weight")}


COMPRESSOR = ("ape", "wgate.weight", "wkv.weight")
WHOLE = (
    *("self_attention.linear_q.weight", "self_attention.linear_kv.weight", "mlp.router.tid2eid"),
    *(f"{part}.hc_fn.weight" for part in ("attn_mhc", "mlp_mhc", "hc_head")),
    *(f"self_attention.compressor.{name}" for name in COMPRESSOR),
    *(f"self_attention.indexer.kv_compressor.{name}" for name in COMPRESSOR),
    *(f"self_attention.indexer.{name}.weight" for name in ("wq_b", "weights_proj")),
)
"""What every rank has whole, though it is a matrix."""


class TestBase(FamilyContract):
    whole = WHOLE
    model_type = "deepseek4_base"
    config = BASE


class TestFlash(FamilyContract):
    whole = WHOLE
    model_type = "deepseek4"
    config = CONFIG
    cases = ("one_rank", "tp2_pp2_padded_vocabulary", "tp2_pp2_ep2_grouped", "tp2_pp2_mtp2", "three_layers")


class TestEveryLayerByTableOrWithoutCompression(TestFlash):
    config = {**CONFIG, "num_hash_layers": 4, "compress_ratios": [0, 0, 0, 0, 0, 0], "n_shared_experts": 2}
    cases = ("tp2_ep2_etp1",)


def sources(without=(), more=None):
    tensors = source_tensors(load_registry().family("deepseek4"), CONFIG) | (more or {})
    table = torch.arange(90 * 3).reshape(90, 3) % 8
    tensors |= {f"layers.{layer}.ffn.gate.tid2eid": table + layer for layer in (0, 1)}
    return {name: tensor for name, tensor in tensors.items() if name not in without}


def convert(folder, tensors, options, *, config=CONFIG, model_type="deepseek4", dtype=None):
    """Convert these tensors; returns the conversion and rank -> key -> tensor."""
    hf = save_huggingface(folder / "hf", config, tensors)
    conversion = prepare_to_megatron(Request(hf, options, model_type=model_type, dtype=dtype), load_registry())
    run_conversion(conversion, folder / "mg", Settings())
    return conversion, {rank: shard["model"] for rank, shard in shards_in(folder / "mg").items()}


def test_attention_is_cut_by_heads_and_groups(tmp_path):
    hf = sources(without=REPEATED)
    _, shards = convert(tmp_path, hf, Options(target_tensor_parallel_size=2))
    second, attn = shards["mp_rank_01"], "layers.1.attn."
    ours = {k.removeprefix("decoder.layers.1.self_attention."): t for k, t in second.items() if ".layers.1." in k}
    expected = {
        "attn_sink": hf[attn + "attn_sink"][4:],
        "linear_q_up_proj.weight": hf[attn + "wq_b.weight"][40:],
        "linear_o_down_proj.weight": hf[attn + "wo_a.weight"][12:],
        "linear_o_up_proj.weight": hf[attn + "wo_b.weight"][:, 12:],
        "linear_q.weight": hf[attn + "wq_a.weight"],
        "linear_kv.weight": hf[attn + "wkv.weight"],
        "compressor.ape": hf[attn + "compressor.ape"],
        "indexer.kv_compressor.wgate.weight": hf[attn + "indexer.compressor.wgate.weight"],
    }
    assert (expected["compressor.ape"].shape, hf["layers.2.attn.compressor.ape"].shape) == ((4, 20), (128, 10))
    for key, tensor in expected.items():
        assert torch.equal(ours[key], tensor), key


def test_table_of_experts_is_whole_and_padded_with_the_vocabulary(tmp_path):
    hf = sources(without=REPEATED)
    options = Options(target_tensor_parallel_size=2, make_vocab_size_divisible_by=8)
    _, shards = convert(tmp_path, hf, options, dtype="fp32")
    for shard in shards.values():
        table = shard["decoder.layers.1.mlp.router.tid2eid"]
        assert (table.dtype, table.shape) == (torch.int64, (96, 3))
        assert torch.equal(table[:90], hf["layers.1.ffn.gate.tid2eid"])
        assert not table[90:].any()
    mg2hf(tmp_path / "mg", tmp_path / "back")
    back = contents_in(tmp_path / "back")
    assert back["layers.1.ffn.gate.tid2eid"] == contents_in(tmp_path / "hf")["layers.1.ffn.gate.tid2eid"]


def test_projections_of_mtp_lie_side_by_side_and_are_cut_by_rows(tmp_path):
    hf = sources(without=REPEATED)
    _, shards = convert(tmp_path, hf, Options(target_tensor_parallel_size=2, mtp_num_layers=2))
    both = torch.cat([hf["mtp.1.e_proj.weight"], hf["mtp.1.h_proj.weight"]], dim=1)
    assert torch.equal(shards["mp_rank_01"]["mtp.layers.1.eh_proj.weight"], both[21:])
    assert torch.equal(shards["mp_rank_01"]["mtp.layers.1.hc_head.hc_fn.weight"], hf["mtp.1.hc_head_fn"])
    assert torch.equal(shards["mp_rank_01"]["hc_head.hc_fn.weight"], hf["hc_head_fn"])


def test_dtype_leaves_what_training_keeps_in_float32(tmp_path):
    _, shards = convert(tmp_path, sources(without=REPEATED), Options(), dtype="fp16")
    kept = {key for key, tensor in shards["mp_rank_00"].items() if tensor.dtype == torch.float32}
    last = {key.removeprefix("decoder.layers.3.") for key in kept if ".layers.3." in key}
    connections = {f"{part}_mhc.{name}" for part in ("attn", "mlp") for name in ("hc_base", "hc_fn.weight", "hc_scale")}
    apes = {"self_attention.compressor.ape", "self_attention.indexer.kv_compressor.ape"}
    assert last == connections | apes | {"self_attention.attn_sink", "mlp.router.expert_bias"}


@pytest.mark.parametrize("model_type", ["deepseek4", "deepseek4_base"])
@pytest.mark.parametrize("absent", [(), REPEATED, {"mtp.1.head.weight"}], ids=["both", "none", "one lacks"])
def test_way_back_gives_the_repeated_tensors_that_the_source_had(model_type, absent, tmp_path):
    hf = sources(without=absent)
    convert(tmp_path, hf, Options(mtp_num_layers=2), model_type=model_type)
    mg2hf(tmp_path / "mg", tmp_path / "back")
    assert contents_in(tmp_path / "back") == contents_in(tmp_path / "hf")


@pytest.mark.parametrize(("model_type", "given"), [("deepseek4", set()), ("deepseek4_base", REPEATED)])
def test_type_decides_on_repeated_tensors_where_nothing_is_recorded(model_type, given, tmp_path):
    convert(tmp_path, sources(), Options(mtp_num_layers=2), model_type=model_type)
    (path,) = (tmp_path / "mg").glob("*/*/model_optim_rng.pt")
    state = shards_in(tmp_path / "mg")["mp_rank_00"]
    vars(state["args"]).pop("absent_mtp_copies", None)
    torch.save(state, path)
    mg2hf(tmp_path / "mg", tmp_path / "back")
    assert contents_in(tmp_path / "back").keys() & REPEATED == given


def test_repeated_tensor_that_differs_is_refused(tmp_path):
    tensors = sources(more={"mtp.0.emb.tok_emb.weight": content("another", (90, 42))})
    with pytest.raises(MscvtError, match=r"mtp.0.emb.tok_emb.weight differs from embed.weight"):
        convert(tmp_path, tensors, Options(mtp_num_layers=1))


def test_kinds_of_layers_follow_from_ratios_and_numbers():
    kinds = [layer.kind for layer in layers_of(load_registry().family("deepseek4"), CONFIG)]
    assert kinds[:4] == [
        ("attention", "moe", "by_table"),
        ("attention", "compressor", "indexer", "moe", "by_table"),
        ("attention", "compressor", "moe", "by_score"),
        ("attention", "compressor", "indexer", "moe", "by_score"),
    ]


def test_configuration_of_transformers_says_the_same_layers():
    family = load_registry().family("deepseek4")
    said = {name: value for name, value in CONFIG.items() if name not in ("compress_ratios", "num_hash_layers")}
    sparse, heavy = "compressed_sparse_attention", "heavily_compressed_attention"
    said |= {"layer_types": ["sliding_attention", sparse, heavy, sparse]}
    said |= {"mlp_layer_types": ["hash_moe", "hash_moe", "moe", "moe"], "compress_rates": {sparse: 4, heavy: 128}}
    assert layers_of(family, said) == layers_of(family, CONFIG)


def test_too_few_ratios_are_refused(tmp_path):
    with pytest.raises(MscvtError, match="compress_ratios has 3 entries, expected one for each of 4 layers"):
        convert(tmp_path, sources(), Options(), config={**CONFIG, "compress_ratios": [0, 4, 4]})


DRAFTER = {**CONFIG, "num_nextn_predict_layers": 1, "compress_ratios": [0, 4, 128, 4, 0, 0, 0], "dspark_block": 5}


def drafting_sources():
    more = {name: content(name, (4, 42)) for name in ("mtp.0.main_proj.weight", "mtp.2.markov_head.markov_w1.weight")}
    return more, {name: t for name, t in sources().items() if not name.startswith("mtp.")} | more


def test_drafter_is_left_out_and_reported(tmp_path):
    more, tensors = drafting_sources()
    conversion, _ = convert(tmp_path, tensors, Options(), config=DRAFTER)
    assert conversion.plan.left_out == dict.fromkeys(more, "they are a drafter, which is no MTP layer")
    mg2hf(tmp_path / "mg", tmp_path / "back", hf_cfg_dir=tmp_path / "hf")
    assert contents_in(tmp_path / "back").keys() == tensors.keys() - more.keys()


def test_drafter_can_not_be_taken_for_mtp_layers(tmp_path):
    with pytest.raises(MscvtError, match=r"--mtp-num-layers 1: the model has 0 MTP layers"):
        convert(tmp_path, drafting_sources()[1], Options(mtp_num_layers=1), config=DRAFTER)


@pytest.mark.parametrize("layers", [None, 3], ids=["whole", "reduced"])
def test_args_say_what_training_asks_for(layers, tmp_path):
    convert(tmp_path, sources(), Options(mtp_num_layers=1, num_layers=layers))
    args = vars(shards_in(tmp_path / "mg")["mp_rank_00"]["args"])
    assert args["compress_ratios"] == [0, 4, 128, 4, 0, 0] if layers is None else [0, 4, 128, 0, 0]
    expected = {"n_hash_layers": 2, "o_groups": 4, "o_lora_rank": 6, "head_dim": 10, "qk_head_dim": 10}
    expected |= {"multi_latent_attention": True, "router_bias": True, "qk_layernorm": True, "q_lora_rank": 22}
    expected |= {"tie_mtp_embeddings_and_lmhead": "true", "first_k_dense_replace": 0, "num_query_groups": 1}
    assert {name: args[name] for name in expected} == expected
    mg2hf(tmp_path / "mg", tmp_path / "back", hf_cfg_dir=tmp_path / "hf")
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert written["num_hidden_layers"] == (layers or 4)
