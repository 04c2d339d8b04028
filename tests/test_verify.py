"""`mscvt verify`: equal is equal, and every difference is found and named."""

import shutil
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import mscvt.engine.run
import mscvt.engine.sinks
from mscvt.cli.app import app
from mscvt.formats.huggingface.reader import HuggingFaceSource
from mscvt.formats.torch_zip.reader import load, tensors_in
from verified import SHARD, failing, flip, flip_shard, places, verify


@pytest.fixture
def copies(sources, tmp_path):
    """Checkpoints that a test may damage."""
    for name in ("hf", "mg"):
        shutil.copytree(getattr(sources, name), tmp_path / name)
    return tmp_path / "hf", tmp_path / "mg"


def test_equal_checkpoints_are_equal_without_any_option(sources):
    code, report = verify(*sources)
    assert (code, report["is_equal"], report["differences"], report["notes"]) == (0, True, [], [])
    assert report["bytes"] == 1318144
    shown = CliRunner().invoke(
        app, ["verify", "--hf", str(sources.hf), "--mg", str(sources.mg)], catch_exceptions=False
    )
    assert shown.stdout.startswith(f"equal; compared {report['tensors']} tensors, 1,318,144 bytes in ")


def test_differences_are_named_where_folders_are_given_from_here(copies, monkeypatch):
    hf, mg = copies
    index = flip_shard(mg, "00_000_000", "model", "decoder.layers.0.mlp.router.weight", 7)
    monkeypatch.chdir(mg.parent)
    code, report = verify(hf, Path(mg.name))
    assert code == 1
    assert places(report)[0] == (
        f"decoder.layers.0.mlp.router.weight (model of rank tp 0, pp 0, ep 0), first at index {index}, "
        f"in {SHARD.format('00_000_000')}"
    )
    assert report["differences"][0]["made_from"] == ["model.layers.0.mlp.gate.weight"]


@pytest.mark.parametrize(
    ("rank", "where", "key", "element"),
    [
        ("00_000_000", "tp 0, pp 0, ep 0", "embedding.word_embeddings.weight", 0),
        ("01_001_003", "tp 1, pp 1, ep 3", "output_layer.weight", 48 * 48 - 1),  # a replica on another ep rank
        ("01_000_002", "tp 1, pp 0, ep 2", "decoder.layers.3.self_attention.linear_qkv.weight", 777),
        ("01_001_001", "tp 1, pp 1, ep 1", "decoder.final_layernorm.weight", 47),  # of another tp rank
        ("00_001_002", "tp 0, pp 1, ep 2", "decoder.layers.2.mlp.experts.weight1", 1234),
        ("01_000_001", "tp 1, pp 0, ep 1", "decoder.layers.0.mlp.experts.weight2", 1),
        ("00_000_003", "tp 0, pp 0, ep 3", "decoder.layers.1.mlp.router.weight", 100),
    ],
)
def test_one_flipped_bit_in_a_shard_is_named_exactly(rank, where, key, element, copies):
    hf, mg = copies
    index = flip_shard(mg, rank, "model", key, element)
    code, report = verify(hf, mg)
    assert (code, report["is_equal"]) == (1, False)
    assert places(report) == [f"{key} (model of rank {where}), first at index {index}, in {SHARD.format(rank)}"]


def test_the_first_of_several_differences_is_named_with_small_buffers(copies, monkeypatch):
    monkeypatch.setattr(mscvt.engine.run, "_LEAST_BUFFER", 256)
    monkeypatch.setattr(mscvt.engine, "DEFAULT_MEMORY", 256)
    hf, mg = copies
    key = "decoder.layers.0.mlp.experts.weight1"
    before = read_shard(mg, "00_000_000")[key].double()
    for element in (2000, 1500, 701, 700, 2303):
        index = flip_shard(mg, "00_000_000", "model", key, element)
        if element == 700:
            first = index
    code, report = verify(hf, mg, "--workers", "3")
    assert code == 1
    (difference,) = report["differences"]
    assert (difference["index"], difference["elements"], difference["of"]) == (first, 5, 2304)
    after = read_shard(mg, "00_000_000")[key].double()
    assert difference["largest"] == (before - after).abs().max()
    assert difference["reach"] == before[before != after].abs().max()
    shown = CliRunner().invoke(app, ["verify", "--hf", str(hf), "--mg", str(mg)]).stdout
    sizes = f"by at most {difference['largest']:.3g} where values reach {difference['reach']:.3g}"
    assert f"; 5 of 2,304 elements, {sizes}; it is made from model.layers.0.mlp.experts.0.gate_proj.weight, " in shown


@pytest.mark.parametrize(
    ("name", "element", "expected"),
    [
        (
            "model.layers.0.self_attn.k_proj.weight",  # kv head 1: the second group of tp 0
            (10 + 3) * 48 + 5,
            [
                f"decoder.layers.0.self_attention.linear_qkv.weight (model of rank tp 0, pp 0, ep {ep}), "
                f"first at index [{40 + 20 + 3}, 5], in {SHARD.format(f'00_000_{ep:03d}')}"
                for ep in range(4)
            ],
        ),
        (
            "model.layers.7.mlp.experts.5.down_proj.weight",  # ep 2, its second expert; [48, 24], tp 1 has columns 12..
            30 * 24 + 13,
            [
                "decoder.layers.3.mlp.experts.weight2 (model of rank tp 1, pp 1, ep 2), "
                f"first at index [{12 + 1}, 30], in {SHARD.format('01_001_002')}"
            ],
        ),
    ],
)
def test_one_flipped_bit_in_safetensors_is_found_in_every_rank_that_has_it(name, element, expected, copies):
    hf, mg = copies
    source = HuggingFaceSource(hf)
    info = source.tensors[name]
    flip(source.files[info.file], info.offset + 2 * element)
    code, report = verify(hf, mg)
    assert code == 1
    assert places(report) == expected
    assert all(name in difference["made_from"] for difference in report["differences"])


def read_shard(mg, rank):
    with torch.serialization.safe_globals([Namespace]):
        return torch.load(mg / SHARD.format(rank), weights_only=True)["model"]


def rewrite_shard(mg, rank, change):
    path = mg / SHARD.format(rank)
    with torch.serialization.safe_globals([Namespace]):
        state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


def test_missing_and_extra_tensors_of_either_side_are_named(copies):
    hf, mg = copies

    def change(state):
        state["model"]["decoder.layers.0.extra.weight"] = state["model"].pop("decoder.layers.1.mlp.router.weight")

    rewrite_shard(mg, "01_000_002", change)
    said = failing(hf, mg)
    rank = "(model of rank tp 1, pp 0, ep 2)"
    assert f"missing in the Megatron checkpoint: decoder.layers.1.mlp.router.weight {rank}" in said
    assert f"only in the Megatron checkpoint: decoder.layers.0.extra.weight {rank}" in said

    tensors = {name: value for path in sorted(hf.glob("*.safetensors")) for name, value in load_file(path).items()}
    for path in hf.glob("model*"):
        path.unlink()
    tensors["model.layers.2.other.weight"] = tensors.pop("model.layers.3.mlp.gate.weight")
    save_file(tensors, hf / "model.safetensors")
    said = failing(hf, mg)
    assert "missing: model.layers.3.mlp.gate.weight" in said
    assert "no rule takes: model.layers.2.other.weight" in said


def test_another_shape_or_dtype_is_named_with_the_hint(copies):
    hf, mg = copies

    def change(state):
        state["model"]["decoder.layers.1.mlp.router.weight"] = state["model"][
            "decoder.layers.1.mlp.router.weight"
        ].float()

    rewrite_shard(mg, "00_000_001", change)
    assert (
        "decoder.layers.1.mlp.router.weight (model of rank tp 0, pp 0, ep 1) is F32 [8, 48], expected BF16"
        in failing(hf, mg)
    )


def test_a_missing_rank_is_named(copies):
    hf, mg = copies
    shutil.rmtree(mg / "iter_0000001/mp_rank_01_001_002")
    assert "mp_rank_01_001_002" in failing(hf, mg)


def test_another_iteration_is_named_with_its_own_folder(copies):
    hf, mg = copies
    (mg / "iter_0000001").rename(mg / "iter_0000500")
    (mg / "latest_checkpointed_iteration.txt").write_text("500")
    assert verify(hf, mg)[0] == 0
    path = mg / "iter_0000500/mp_rank_00_000_000/model_optim_rng.pt"
    info = dict(tensors_in(path, 0, load(path)["model"], "model"))["embedding.word_embeddings.weight"]
    flip(path, info.offset)
    code, report = verify(hf, mg)
    assert code == 1
    assert places(report)[0].endswith("in iter_0000500/mp_rank_00_000_000/model_optim_rng.pt")
