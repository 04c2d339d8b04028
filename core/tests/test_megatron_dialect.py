"""The NVIDIA dialect from folder to folder: both ways, between dialects, recognised, refused."""

from argparse import Namespace

import pytest
import torch

from mscvt.dialects.known import recognise
from mscvt.dialects.options import Options
from mscvt.errors import MscvtError
from mscvt.jobs.conversion import Settings, run_conversion
from mscvt.jobs.prepare import prepare_reshard, prepare_to_huggingface
from mscvt.jobs.request import Request
from mscvt.jobs.verify import verify_checkpoints
from mscvt.plugins.registry import load_registry
from mscvt.testing import contents_in, hf2mg, mg2hf, save_huggingface, shards_in, source_tensors
from small_configurations import DEEPSEEK, LLAMA, MIXTURE, QWEN

REGISTRY = load_registry()
TP, PP, EP = (f"target_{name}_parallel_size" for name in ("tensor", "pipeline", "expert"))
ETP, GROUPED, LEGACY = "expert_tensor_parallel_size", "moe_grouped_gemm", "moe_use_legacy_grouped_gemm"
MTP, IMPL, VERSION, PADDED = (
    "mtp_num_layers",
    "transformer_impl",
    "megatron_core_version",
    "make_vocab_size_divisible_by",
)
FIRST, CHUNKS, LAYOUT = (
    "decoder_first_pipeline_num_layers",
    "num_virtual_stages_per_pipeline_rank",
    "pipeline_model_parallel_layout",
)
TIED = {**QWEN, "tie_word_embeddings": True}
SPARSE = {**MIXTURE, "mlp_only_layers": [0, 2]}
EVEN = {**DEEPSEEK, "q_lora_rank": 6, "kv_lora_rank": 4}
MANY = {**LLAMA, "num_attention_heads": 8, "head_dim": 4, "intermediate_size": 16, "num_key_value_heads": 2}


def nvidia(**options):
    return Options(dialect="megatron", **options)


def source(folder, config):
    return save_huggingface(folder, config, source_tensors(REGISTRY.recognise(config), config))


BOTH_WAYS = {
    "one rank": (QWEN, {}),
    "local": (QWEN, {TP: 2, PP: 2, IMPL: "local"}),
    "tied": (TIED, {TP: 2, PP: 2}),
    "uneven stages": (QWEN, {PP: 2, FIRST: 1}),
    "virtual stages": (QWEN, {PP: 2, CHUNKS: 2}),
    "layout": (QWEN, {PP: 2, LAYOUT: "Et|t|t|tL"}),
    "whole experts on some ranks": (MIXTURE, {TP: 2, EP: 2, ETP: 1}),
    "numbered experts": (MIXTURE, {TP: 2, EP: 4, GROUPED: True}),
    "experts in one tensor": (MIXTURE, {TP: 2, EP: 2, GROUPED: True, IMPL: "local", VERSION: "0.16.1"}),
    "experts in one tensor with TE": (MIXTURE, {EP: 2, GROUPED: True, LEGACY: True, VERSION: "0.15"}),
    "dense layers in between": (SPARSE, {EP: 2}),
    "latent attention": (DEEPSEEK, {TP: 2, PP: 2, MTP: 1}),
    "compressions are cut": (EVEN, {TP: 2, MTP: 1, VERSION: "0.13"}),
    "norms apart": (EVEN, {TP: 2, GROUPED: True, VERSION: "0.10"}),
    "MTP before the last stage": (DEEPSEEK, {PP: 4, MTP: 1, LAYOUT: "Ett|tt|m|L"}),
    "more ranks than groups": (MANY, {TP: 8}),
}


@pytest.mark.parametrize(("config", "options"), BOTH_WAYS.values(), ids=BOTH_WAYS)
def test_conversion_gives_back_every_byte_without_flags(config, options, tmp_path):
    hf, mg, back = tmp_path / "hf", tmp_path / "mg", tmp_path / "back"
    source(hf, config)
    there = hf2mg(hf, mg, nvidia(**options))
    assert (mg / "latest_checkpointed_iteration.txt").read_text() == "release"
    assert sorted(path.name for path in mg.iterdir()) == ["latest_checkpointed_iteration.txt", "release"]
    version = options.get(VERSION, "0.19")
    conversion = mg2hf(mg, back)
    assert f"recognised as megatron, names of megatron-core {version}, because" in " ".join(conversion.notes)
    left_out = there.plan.left_out
    assert contents_in(back) == {name: what for name, what in contents_in(hf).items() if name not in left_out}
    if not left_out:
        assert verify_checkpoints(hf=hf, mg=mg, registry=REGISTRY).is_equal


def test_rows_run_through_groups_where_ranks_outnumber_them(tmp_path):
    hf2mg(source(tmp_path / "hf", MANY), tmp_path / "one", nvidia())
    hf2mg(tmp_path / "hf", tmp_path / "many", nvidia(**{TP: 4}))
    key = "decoder.layers.1.self_attention.linear_qkv.weight"
    (whole,) = (state["model"][key] for state in shards_in(tmp_path / "one").values())
    parts = [state["model"][key] for state in shards_in(tmp_path / "many").values()]
    assert [part.shape[0] for part in parts] == [12] * 4
    assert torch.equal(torch.cat(parts), whole)


def test_vocabulary_is_padded_as_megatron_does(tmp_path):
    hf2mg(source(tmp_path / "hf", QWEN), tmp_path / "mg", nvidia(**{TP: 2}))
    hf2mg(tmp_path / "hf", tmp_path / "small", nvidia(**{TP: 2, PADDED: 3}))
    for name, rows in (("mg", 128), ("small", 12)):
        states = shards_in(tmp_path / name).values()
        assert [state["model"]["embedding.word_embeddings.weight"].shape[0] for state in states] == [rows] * 2
        assert [vars(state["args"])["padded_vocab_size"] for state in states] == [2 * rows] * 2


def test_args_and_flags_are_megatrons(tmp_path):
    options = nvidia(**{TP: 2, PP: 2, EP: 2, ETP: 1, MTP: 1, CHUNKS: 1, GROUPED: True})
    conversion = hf2mg(source(tmp_path / "hf", DEEPSEEK), tmp_path / "mg", options)
    state = next(iter(shards_in(tmp_path / "mg").values()))
    args = vars(state["args"])
    assert (state["iteration"], state["checkpoint_version"]) == (0, 3.0)
    expected = {
        "tensor_model_parallel_size": 2,
        "pipeline_model_parallel_size": 2,
        "expert_model_parallel_size": 2,
        "expert_tensor_parallel_size": 1,
        "virtual_pipeline_model_parallel_size": None,
        "transformer_impl": "transformer_engine",
        "moe_layer_freq": [0, 1, 1, 1],
        "moe_ffn_hidden_size": 6,
        "moe_shared_expert_intermediate_size": 6,
        "moe_router_enable_expert_bias": True,
        "multi_latent_attention": True,
        "qk_head_dim": 3,
        "mtp_num_layers": 1,
        "make_vocab_size_divisible_by": 128,
        "padded_vocab_size": 256,
    }
    assert {name: args[name] for name in expected} == expected
    assert not {"noop_layers", "num_layer_list", "moe_tp_extend_ep", "mla_mm_split"} & args.keys()
    flags = conversion.training_flags
    for words in (
        "--num-layers 4",
        "--tensor-model-parallel-size 2",
        "--expert-tensor-parallel-size 1",
        "--moe-layer-freq '([0]*1+[1]*3)'",
        "--multi-latent-attention",
        "--q-lora-rank 7",
        "--qk-head-dim 3",
        "--moe-router-enable-expert-bias",
        "--moe-grouped-gemm",
        "--mtp-num-layers 1",
        "--transformer-impl transformer_engine",
        "--make-vocab-size-divisible-by 128",
        "--untie-embeddings-and-output-weights",
    ):
        assert words in flags


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


BETWEEN = {  # configuration, options of the source, what is asked for, what is taken away, options of the target
    "to the other": (QWEN, Options(**{TP: 2, "noop_layers": (1, 4), PP: 2}), {"dialect": "megatron", IMPL: "local"}, (),
                     nvidia(**{TP: 2, PP: 2, IMPL: "local"})),
    "to the usual": (MIXTURE, nvidia(**{TP: 2, EP: 2, ETP: 1, PADDED: 4}), {"dialect": "mindspeed"}, (PADDED,),
                     Options(**{TP: 2, EP: 2, ETP: 1, IMPL: "transformer_engine"})),
    "other names of latent attention": (DEEPSEEK, Options(**{MTP: 1}), {"dialect": "megatron", PP: 2,
                                        IMPL: "transformer_engine"}, (), nvidia(**{MTP: 1, PP: 2})),
    "another version": (DEEPSEEK, nvidia(**{MTP: 1}), {VERSION: "0.16", TP: 2}, (),
                        nvidia(**{MTP: 1, VERSION: "0.16", TP: 2})),
    "another layout": (QWEN, nvidia(**{PP: 2, FIRST: 1}), {PP: 3, LAYOUT: "Et|tt|tL"}, (FIRST,),
                       nvidia(**{PP: 3, LAYOUT: "Et|tt|tL"})),
    "the same ranks": (MIXTURE, nvidia(**{EP: 2, GROUPED: True}), {TP: 2}, (GROUPED,), nvidia(**{EP: 2, TP: 2})),
}  # fmt: skip


@pytest.mark.parametrize(("config", "there", "asked", "removed", "target"), BETWEEN.values(), ids=BETWEEN)
def test_other_dialect_is_what_the_original_gives_under_its_options(config, there, asked, removed, target, tmp_path):
    hf = source(tmp_path / "hf", config)
    hf2mg(hf, tmp_path / "there", there)
    expected = hf2mg(hf, tmp_path / "expected", target)
    request = Request(tmp_path / "there", Options(**asked), removed=frozenset(removed))
    conversion = prepare_reshard(request, REGISTRY)
    run_conversion(conversion, tmp_path / "found", Settings())
    assert files_in(tmp_path / "found") == files_in(tmp_path / "expected")
    assert conversion.training_flags == expected.training_flags
    if there.noop_layers:
        assert any(
            "--noop-layers 1,4 of the source: is left out, megatron has no such option" in n for n in conversion.notes
        )


REFUSED = {
    "option of the other": (QWEN, nvidia(noop_layers=(0,)), "--noop-layers 0: is no option of --dialect megatron"),
    "option of this one": (QWEN, Options(**{CHUNKS: 2}), f"--{CHUNKS.replace('_', '-')} 2: is no option of --dialect"),
    "version": (QWEN, nvidia(**{VERSION: "0.9"}), "--megatron-core-version 0.9: its names are not known"),
    "local latent attention": (DEEPSEEK, nvidia(**{IMPL: "local"}), "can't build latent attention from local modules"),
    "whole query": ({**DEEPSEEK, "model_type": "deepseek_v2", "q_lora_rank": None, "num_nextn_predict_layers": 0},
                    nvidia(), "normalises a query that is not compressed once more"),
    "MTP too early": (DEEPSEEK, nvidia(**{MTP: 1, VERSION: "0.11", GROUPED: True}), "has it since 0.12"),
    "layout too early": (QWEN, nvidia(**{LAYOUT: "EttttL", VERSION: "0.12"}), "has it since 0.13"),
    "old experts": (MIXTURE, nvidia(**{GROUPED: True, LEGACY: True}), "has it up to 0.16"),
    "old experts alone": (MIXTURE, nvidia(**{LEGACY: True, VERSION: "0.16"}), "means nothing without --moe-grouped"),
    "widths of experts": (MIXTURE, nvidia(**{VERSION: "0.11"}), "experts are 6 wide and dense layers 14"),
    "groups": (MANY, nvidia(**{TP: 8, VERSION: "0.15"}), "which megatron-core can divide since 0.16"),
    "odd groups": ({**MANY, "num_key_value_heads": 2}, nvidia(**{TP: 3}), "and no multiple of them"),
    "experts cut more than all": (MIXTURE, nvidia(**{TP: 2, ETP: 4}), "must divide --target-tensor-parallel-size"),
}  # fmt: skip


@pytest.mark.parametrize(("config", "options", "said"), REFUSED.values(), ids=REFUSED)
def test_what_megatron_can_not_have_is_refused(config, options, said, tmp_path):
    source(tmp_path / "hf", config)
    with pytest.raises(MscvtError) as caught:
        hf2mg(tmp_path / "hf", tmp_path / "mg", options)
    assert said in str(caught.value)
    assert caught.value.hint
    assert not (tmp_path / "mg").exists()


ARGS = {"transformer_impl": "local", "use_distributed_optimizer": True, "consumed_train_samples": 0}
PLAIN = {"decoder.layers.0.mlp.linear_fc1.weight": (4, 2)}
RECOGNISED = {
    "recorded": ({"mscvt_dialect": "megatron", "mscvt_megatron_core_version": "0.14"}, PLAIN, "megatron", "0.14"),
    "options of MindSpeed": ({**ARGS, "noop_layers": None}, PLAIN, "mindspeed", None),
    "a run of Megatron": (ARGS, PLAIN, "megatron", "0.19"),
    "nothing": ({}, PLAIN, "mindspeed", None),
    "names of latent attention": (
        {},
        {"decoder.layers.0.self_attention.linear_q_proj.weight": (4, 2)},
        "megatron",
        "0.18",
    ),
    "MTP of today": ({}, {"mtp.layers.0.mtp_model_layer.mlp.linear_fc2.weight": (4, 2)}, "megatron", "0.19"),
    "convolution of before": (ARGS, {"decoder.layers.0.mixer.conv1d.weight": (4, 1, 2)}, "megatron", "0.18"),
    "MTP of before": (ARGS, {"mtp.layers.0.transformer_layer.mlp.linear_fc2.weight": (4, 2)}, "megatron", "0.16"),
    "old experts": (ARGS, {"decoder.layers.0.mlp.experts.weight1": (4, 2)}, "megatron", "0.16"),
    "compressions that are cut": (
        {**ARGS, "kv_lora_rank": 6, "qk_pos_emb_head_dim": 2},
        {"decoder.layers.0.self_attention.linear_kv_down_proj.weight": (4, 2)},
        "megatron",
        "0.13",
    ),
    "MTP of MindSpeed": (ARGS, {"mtp.final_layernorms.0.weight": (4,)}, "mindspeed", None),
}


@pytest.mark.parametrize(("args", "tensors", "dialect", "version"), RECOGNISED.values(), ids=RECOGNISED)
def test_dialect_and_version_are_recognised(args, tensors, dialect, version):
    found = recognise(args, tensors)
    assert (found.dialect, found.version) == (dialect, version)
    assert bool(found.why) is (args != {} or tensors != PLAIN)


def test_another_dialect_than_the_checkpoints_is_refused_with_the_reason(tmp_path):
    hf2mg(source(tmp_path / "hf", QWEN), tmp_path / "mg", nvidia())
    with pytest.raises(MscvtError, match="the checkpoint speaks megatron, because its args record mscvt_dialect"):
        prepare_to_huggingface(Request(tmp_path / "mg", Options(dialect="mindspeed")), REGISTRY)


def test_checkpoint_that_says_nothing_is_read_as_asked(tmp_path):
    hf2mg(source(tmp_path / "hf", QWEN), tmp_path / "mg", nvidia(**{PADDED: 1}))
    (path,) = (tmp_path / "mg").rglob("*.pt")
    state = torch.load(path, weights_only=False)
    args = {name: value for name, value in vars(state["args"]).items() if not name.startswith("mscvt_")}
    torch.save({**state, "args": Namespace(**args)}, path)
    conversion = prepare_to_huggingface(Request(tmp_path / "mg", nvidia()), REGISTRY)
    run_conversion(conversion, tmp_path / "back", Settings())
    assert "recognised as megatron" in conversion.notes
    assert contents_in(tmp_path / "back") == contents_in(tmp_path / "hf")


def test_layout_of_a_training_run_changes_though_it_records_no_vocabulary(tmp_path):
    hf2mg(source(tmp_path / "hf", QWEN), tmp_path / "mg", nvidia(**{TP: 2}))
    for path in (tmp_path / "mg").rglob("*.pt"):
        state = torch.load(path, weights_only=False)
        del state["args"].vocab_size
        torch.save(state, path)
    conversion = prepare_reshard(Request(tmp_path / "mg", Options(**{TP: 1})), REGISTRY)
    run_conversion(conversion, tmp_path / "one", Settings())
    said = "the size of the vocabulary is not recorded, only that with padding: all 256 rows are taken for it"
    assert said in conversion.notes
    mg2hf(tmp_path / "one", tmp_path / "back", hf_cfg_dir=tmp_path / "hf")
    assert contents_in(tmp_path / "back") == contents_in(tmp_path / "hf")
