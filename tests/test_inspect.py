"""`mscvt inspect`: whatever is in a folder is recognised, shown, and what is odd about it is said."""

import json
import shutil
import subprocess
import sys
from argparse import Namespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from command_line import make_source, run_main
from golden_cases import load_case
from json_keys import check_object
from lora_cases import CASES, build

PROGRAM = """
import sys
from mscvt.cli.app import app
try:
    app()
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""
LAYOUT = ["--tp", 2, "--pp", 2, "--ep", 2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One model on both sides."""
    folder = tmp_path_factory.mktemp("inspected")
    make_source("qwen3-moe", folder / "hf")
    assert run_main("hf2mg", "--load-dir", folder / "hf", "--save-dir", folder / "mg", *LAYOUT).code == 0
    return folder


@pytest.fixture
def mg(made, tmp_path):
    """The shards, to be changed."""
    return shutil.copytree(made / "mg", tmp_path / "mg")


@pytest.fixture
def hf(made, tmp_path):
    return shutil.copytree(made / "hf", tmp_path / "hf")


def inspected(folder, *words):
    outcome = run_main("inspect", folder, *words, "--json")
    assert outcome.code == 0, outcome.err
    shown = json.loads(outcome.out)
    check_object("inspect", shown)
    return shown


def shard(folder, rank):
    return folder / "iter_0000001" / f"mp_rank_{rank}" / "model_optim_rng.pt"


def edit(path, change):
    """Save a shard again, changed."""
    with torch.serialization.safe_globals([Namespace]):
        state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


def test_both_sides_of_a_model_are_recognised_and_say_the_same_of_it(made):
    hf, mg = inspected(made / "hf"), inspected(made / "mg")
    assert [hf["kind"], hf["model_type"], mg["model_type"]] == ["huggingface", "qwen3-moe", "qwen3-moe"]
    tensors = load_file(made / "hf" / "model.safetensors").values()
    assert hf["parameters"] == mg["parameters"] == sum(tensor.numel() for tensor in tensors)
    assert hf["dtypes"] == [
        {"dtype": "BF16", "tensors": len(tensors), "elements": hf["parameters"], "nbytes": 2 * hf["parameters"]}
    ]
    assert hf["bytes"] == (made / "hf" / "model.safetensors").stat().st_size
    assert mg["bytes"] == sum(path.stat().st_size for path in (made / "mg").rglob("*.pt"))
    for shown in (hf, mg):
        assert sum(row["count"] for row in shown["rows"]) == shown["dtypes"][0]["tensors"]
        assert (shown["odd"], shown["left_over"], shown["missing"], shown["scan"]) == ([], [], [], None)


def test_shards_are_shown_with_their_layout_and_every_key_with_role_cut_and_names(made):
    shown = inspected(made / "mg")
    facts = {"--target-tensor-parallel-size": "2", "--target-pipeline-parallel-size": "2", "iteration": "iter_0000001"}
    assert shown["facts"].items() >= facts.items()
    pipeline = shown["sides"][0]["pipeline"]
    assert (pipeline["tensor"], pipeline["stages"], pipeline["expert"], pipeline["ranks"]) == (2, 2, 2, 8)
    assert [place["ranks"] for place in shown["sides"][0]["experts"]] == [["tp {0-1} ep 0"], ["tp {0-1} ep 1"]]
    assert [(group["paths"], group["count"]) for group in shown["groups"]] == [
        (f"iter_0000001/mp_rank_{{00-01}}_00{p}_{{000-001}}/model_optim_rng.pt", 4) for p in (0, 1)
    ]
    row = next(row for row in shown["rows"] if "linear_fc1" in row["names"])
    assert row == {
        "names": "decoder.layers.{0-1}.mlp.experts.local_experts.{0-3}.linear_fc1.weight",
        "count": 64,
        "shape": [24, 48],
        "dtype": "BF16",
        "part": {
            "role": "moe.expert.{gate,up}",
            "key": "model.layers.{0-3}.mlp.experts.{expert}.{gate_proj,up_proj}.weight",
            "cut": "ep: expert, etp: moe_ffn",
            "shape": [24, 48],
        },
    }


def test_text_says_what_it_is_and_how_to_go_on(made):
    for folder, words in {
        "hf": ["a Hugging Face checkpoint (.safetensors)", "168 k (", "model.safetensors  1 file", "plan hf2mg"],
        "mg": ["a Megatron checkpoint", "168 k (", "pipeline: 8 ranks (tp 2, pp 2, ep 2)", " M 3", "plan mg2hf"],
    }.items():
        out = run_main("inspect", made / folder).out
        assert all(word in out for word in words), out
        assert "nothing is odd" in out
    assert inspected(made / "mg" / "iter_0000001")["rows"] == inspected(made / "mg")["rows"]


@pytest.mark.parametrize("side", ["hf", "mg"])
def test_torch_is_not_imported_for_headers(side, made):
    command = [sys.executable, "-c", PROGRAM, "inspect", str(made / side)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.split() == ["False"]


def test_ranks_that_are_missing_damaged_or_foreign_are_said_and_the_others_shown(mg):
    shutil.rmtree(shard(mg, "01_001_000").parent)
    damaged = shard(mg, "00_000_001")
    damaged.write_bytes(damaged.read_bytes()[:30_000])
    shown = inspected(mg)
    assert shown["odd"][0].endswith("1 of 8 ranks are missing: mp_rank_01_001_000")
    assert "mp_rank_00_000_001" in shown["odd"][1]
    assert "truncated" in shown["odd"][1]
    assert sum(group["count"] for group in shown["groups"]) == 6
    assert next(row for row in shown["rows"] if row["names"] == "output_layer.weight")["count"] == 3
    shutil.copytree(shard(mg, "01_001_001").parent, mg / "iter_0000001" / "mp_rank_02_001_001")
    shutil.copytree(shard(mg, "01_001_001").parent, mg / "iter_0000001" / "mp_rank_01_001_000")
    assert "can't belong to a checkpoint with TP 2, PP 2, EP 2" in inspected(mg)["odd"][0]
    assert "\nodd: " in run_main("inspect", mg).out


def test_tensors_that_contradict_args_are_odd(mg):
    def change(state):
        weights = state["model"]
        weights["decoder.layers.0.extra.weight"] = torch.zeros(3)
        weights["decoder.final_layernorm.weight"] = torch.zeros(7)
        del weights["decoder.layers.1.mlp.router.weight"]

    for rank in ("00_001_000", "00_001_001", "01_001_000", "01_001_001"):
        edit(shard(mg, rank), change)
    shown = inspected(mg)
    assert sorted(shown["odd"]) == [
        "decoder.final_layernorm.weight has the shape [7], args say [48], 4 times",
        "missing on every rank: decoder.layers.1.mlp.router.weight",
        "no rule knows decoder.layers.0.extra.weight, 4 times",
    ]
    assert [row["names"] for row in shown["left_over"]] == ["decoder.layers.0.extra.weight"]


def test_shards_without_args_are_shown_with_their_keys_alone(mg):
    for path in mg.rglob("*.pt"):
        edit(path, lambda state: state.pop("args"))
    shown = inspected(mg)
    assert (shown["model_type"], shown["parameters"], shown["sides"]) == (None, None, [])
    assert "doesn't say what model it is" in shown["odd"][0]
    assert {row["part"] for row in shown["rows"]} == {None}
    assert next(row for row in shown["rows"] if "router" in row["names"])["shape"] == [8, 48]


def test_distributed_checkpoints_are_shown_under_the_keys_of_one_rank_or_as_they_are(made, tmp_path):
    words = ["--dialect", "megatron", "--ckpt-format", "torch_dist"]
    assert run_main("hf2mg", "--load-dir", made / "hf", "--save-dir", tmp_path / "mg", *words).code == 0
    shown = inspected(tmp_path / "mg", "--scan")
    assert shown["what"] == "a Megatron checkpoint in the format torch_dist, with the names of megatron"
    assert (shown["kind"], shown["model_type"], shown["odd"]) == ("megatron", "qwen3-moe", [])
    assert shown["parameters"] == inspected(made / "hf")["parameters"]
    assert shown["sides"][0]["pipeline"]["is_whole"] is True
    assert "pipeline: whole tensors, which ranks cut when they load them\n" in run_main("inspect", tmp_path / "mg").out
    assert (shown["scan"]["findings"], shown["scan"]["tensors"]) == ([], shown["dtypes"][0]["tensors"])
    row = next(row for row in shown["rows"] if "linear_fc2" in row["names"])
    assert (row["count"], row["shape"]) == (32, [48, 24])
    common = next(tmp_path.rglob("common.pt"))
    torch.save({"checkpoint_version": 3.0, "iteration": 7}, common)
    shown = inspected(tmp_path / "mg")
    assert "doesn't say what model it is" in shown["odd"][0]
    row = next(row for row in shown["rows"] if row["names"].endswith("linear_qkv.weight"))
    assert (row["names"], row["shape"]) == ("decoder.layers.self_attention.linear_qkv.weight", [4, 160, 48])
    assert inspected(common.parent)["rows"] == shown["rows"]


def test_other_iterations_are_named_and_can_be_asked_for(mg):
    shutil.copytree(mg / "iter_0000001", mg / "iter_0000002")
    assert inspected(mg)["facts"]["iteration"] == "iter_0000001, there are also iter_0000002"
    assert inspected(mg, "--iteration", 2)["facts"]["iteration"].startswith("iter_0000002, ")
    assert run_main("inspect", mg, "--iteration", 2).out.endswith(f"plan mg2hf --load-dir {mg} --iteration 2\n")


def test_missing_tensors_of_a_model_and_such_that_nobody_knows_are_odd(hf):
    tensors = load_file(hf / "model.safetensors")
    del tensors["model.norm.weight"]
    tensors["model.extra.weight"] = torch.zeros(2)
    save_file(tensors, hf / "model.safetensors")
    shown = inspected(hf)
    assert shown["odd"] == ["missing: model.norm.weight", "no rule takes: model.extra.weight"]
    (hf / "config.json").unlink()
    shown = inspected(hf)
    assert (shown["model_type"], shown["odd"]) == (None, [])
    assert "no roles are shown" in shown["notes"][-1]


def test_values_that_no_weight_has_are_found_when_they_are_read(hf, mg):
    tensors = load_file(hf / "model.safetensors")
    tensors["model.layers.0.mlp.gate.weight"][1, 2:4] = float("nan")
    tensors["model.layers.1.mlp.gate.weight"][3, 0] = float("-inf")
    for layer in (0, 2, 3):
        tensors[f"model.layers.{layer}.self_attn.q_norm.weight"][:] = 0
    tensors["lm_head.weight"] = torch.full((96, 48), float("nan")).to(torch.float8_e4m3fn)
    save_file(tensors, hf / "model.safetensors")
    scan = inspected(hf, "--scan")["scan"]
    assert {(one["what"], one["name"], one["elements"]) for one in scan["findings"]} == {
        ("NaN", "model.layers.0.mlp.gate.weight", 2),
        ("NaN", "lm_head.weight", 96 * 48),
        ("infinity", "model.layers.1.mlp.gate.weight", 1),
        *(("zero", f"model.layers.{layer}.self_attn.q_norm.weight", 10) for layer in (0, 2, 3)),
    }
    assert (scan["tensors"], scan["nbytes"]) == (len(tensors), sum(t.nbytes for t in tensors.values()))
    out = run_main("inspect", hf, "--scan", "--quiet").out
    assert "zero: model.layers.{0,2-3}.self_attn.q_norm.weight (3)\n" in out
    assert "found 6 odd tensors" in out

    edit(shard(mg, "01_000_001"), lambda state: state["model"]["embedding.word_embeddings.weight"].fill_(0))
    (finding,) = inspected(mg, "--scan")["scan"]["findings"]
    assert finding["name"] == "embedding.word_embeddings.weight (model of rank tp 1, pp 0, ep 1)"
    assert "found nothing odd" in run_main("inspect", mg.parent / "hf", "--scan").out or finding["what"] == "zero"


def test_values_are_read_block_by_block(hf, monkeypatch):
    monkeypatch.setattr("mscvt.jobs.scan._BLOCK", 100)
    tensors = load_file(hf / "model.safetensors")
    tensors["lm_head.weight"].view(-1)[[99, 100, 4607]] = float("inf")
    tensors["model.norm.weight"].zero_()
    save_file(tensors, hf / "model.safetensors")
    findings = inspected(hf, "--scan", "--workers", 1)["scan"]["findings"]
    assert {(one["what"], one["name"], one["elements"]) for one in findings} == {
        ("infinity", "lm_head.weight", 3),
        ("zero", "model.norm.weight", 48),
    }


def test_adapters_and_factors_are_named_as_what_they_are(tmp_path):
    case = load_case(CASES / "llama2_tp2_pp2.json")
    shown = inspected(build(case, "peft", tmp_path / "adapter"))
    assert shown["kind"] == "adapter"
    assert shown["what"].startswith("a LoRA adapter of ")
    assert shown["facts"]["rank"] == str(case["peft"]["config"]["r"])
    for name, rest in (("lora_full", ""), ("lora_only", ", and nothing else")):
        shown = inspected(build(case, name, tmp_path / name))
        factors = sum(row["count"] for row in shown["left_over"])
        assert shown["notes"][-1] == f"{factors} tensors are factors of LoRA{rest}"
        assert (shown["odd"], bool(shown["rows"])) == ([], not rest)


def test_folders_that_are_no_checkpoint_are_named_as_what_they_are(tmp_path):
    pointer = tmp_path / "pointer"
    pointer.mkdir()
    (pointer / "config.json").write_text("{}")
    (pointer / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    gguf = tmp_path / "gguf"
    gguf.mkdir()
    (gguf / "model-q4.gguf").write_bytes(b"GGUF")
    for folder, said in {
        "Qwen/Qwen3-0.6B": "Is it a model of a hub? Download it first",
        pointer: "is a Git LFS pointer",
        gguf: "holds GGUF files",
        pointer / "config.json": "is a file, mscvt inspect takes its folder",
    }.items():
        outcome = run_main("inspect", folder)
        assert outcome.code == 1
        assert said in outcome.err, outcome.err


def test_what_a_configuration_says_moves_no_cursor(hf):
    config = json.loads((hf / "config.json").read_text())
    (hf / "config.json").write_text(json.dumps({**config, "architectures": ["evil\x1b[2J"]}))
    out = run_main("inspect", hf).out
    assert "\x1b" not in out
    assert "evil\\x1b[2J" in out
