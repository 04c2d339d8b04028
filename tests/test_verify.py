"""`mscvt verify`: equal is equal, and every difference is found and named."""

import json
import shutil
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import mscvt.engine.run
import mscvt.engine.sinks
from golden_cases import CASES, build_source, load_case
from mscvt.cli.main import app
from mscvt.errors import MscvtError
from mscvt.formats.huggingface.reader import HuggingFaceSource
from mscvt.formats.torch_zip.reader import load, tensors_in
from mscvt.testing import content
from small_conversions import make_sources

SHARD = "iter_0000001/mp_rank_{}/model_optim_rng.pt"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return make_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture
def copies(sources, tmp_path):
    """Checkpoints that a test may damage."""
    for name in ("hf", "mg"):
        shutil.copytree(getattr(sources, name), tmp_path / name)
    return tmp_path / "hf", tmp_path / "mg"


def verify(hf, mg, *more):
    """Exit code and report."""
    command = ["verify", "--hf", str(hf), "--mg", str(mg), "--json", *more]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    return result.exit_code, json.loads(result.stdout)


def flip(path, offset):
    """Change the lowest bit of one byte."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def flip_shard(mg, rank, part, key, element):
    path = mg / SHARD.format(rank)
    info = dict(tensors_in(path, 0, load(path)[part], part))[key]
    flip(path, info.offset + element * info.nbytes // info.numel)
    return list(map(int, torch.unravel_index(torch.tensor(element), info.shape)))


def test_equal_checkpoints_are_equal_without_any_option(sources):
    code, report = verify(*sources)
    assert (code, report["is_equal"], report["differences"], report["notes"]) == (0, True, [], [])
    assert report["bytes"] == 1318144
    shown = CliRunner().invoke(
        app, ["verify", "--hf", str(sources.hf), "--mg", str(sources.mg)], catch_exceptions=False
    )
    assert shown.stdout.startswith(f"equal; compared {report['tensors']} tensors, 1,318,144 bytes in ")


def places(report):
    """Which tensors differ, and where."""
    return [f"{each['tensor']}, first at index {each['index']}, in {each['file']}" for each in report["differences"]]


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


def failing(hf, mg, *more):
    with pytest.raises(MscvtError) as caught:
        verify(hf, mg, "--debug", *more)
    return str(caught.value)


def failing_hint(hf, mg):
    with pytest.raises(MscvtError) as caught:
        verify(hf, mg, "--debug")
    return caught.value.hint


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


def convert_case(folder, case, *more):
    case = load_case(CASES / f"{case}.json")
    hf, mg = build_source(case, folder / "hf"), folder / "mg"
    arguments = ["hf2mg", "--model-type-hf", case["model_type_hf"], "--load-dir", hf, "--save-dir", mg, *more]
    assert CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False).exit_code == 0
    return hf, mg


def test_padding_of_the_vocabulary_may_be_trained_and_is_not_compared(tmp_path, monkeypatch):
    options = ["--target-tensor-parallel-size", "2", "--target-pipeline-parallel-size", "2"]
    hf, mg = convert_case(tmp_path, "llama2_tp1", *options, "--make-vocab-size-divisible-by", "40")
    assert verify(hf, mg)[1]["notes"] == []
    path = mg / SHARD.format("01_000")
    info = dict(tensors_in(path, 0, load(path)["model"], "model"))["embedding.word_embeddings.weight"]
    vocabulary = json.loads((hf / "config.json").read_text())["vocab_size"]
    rows, columns = info.shape
    real = vocabulary - rows
    assert 0 < real < rows
    flip(path, info.offset + 2 * (real * columns + 3))
    flip(path, info.offset + info.nbytes - 1)
    code, report = verify(hf, mg)
    assert (code, report["is_equal"]) == (0, True)
    assert report["notes"] == [
        "the padding of the vocabulary is not compared: training changes it (1 tensors have some that is not zero)"
    ]
    flip(path, info.offset + 2 * (real * columns - 1))  # the last real element
    monkeypatch.setattr(mscvt.engine.run, "_LEAST_BUFFER", 256)
    monkeypatch.setattr(mscvt.engine, "DEFAULT_MEMORY", 256)
    code, report = verify(hf, mg)
    assert code == 1
    assert [each["index"] for each in report["differences"]] == [[real - 1, columns - 1]]


def test_fp8_weights_are_decoded_and_every_decoded_element_compared(tmp_path):
    hf, mg = build_source(load_case(CASES / "llama2_tp1.json"), tmp_path / "hf"), tmp_path / "mg"
    tensors = {name: value for path in sorted(hf.glob("*.safetensors")) for name, value in load_file(path).items()}
    for path in hf.glob("model*"):
        path.unlink()
    name = "model.layers.1.mlp.down_proj.weight"
    rows, columns = tensors[name].shape
    tensors[name] = content(name, (rows, columns), "F8_E4M3")
    tensors[name + "_scale_inv"] = torch.full((-(-rows // 128), -(-columns // 128)), 0.5)
    save_file(tensors, hf / "model.safetensors")
    arguments = ["--dequantize", "--target-tensor-parallel-size", "2"]
    command = ["hf2mg", "--model-type-hf", "llama2", "--load-dir", str(hf), "--save-dir", str(mg), *arguments]
    assert CliRunner().invoke(app, [*command, "--verify"], catch_exceptions=False).exit_code == 0
    assert verify(hf, mg, "--dequantize")[0] == 0
    assert "--dequantize" in failing_hint(hf, mg)
    index = flip_shard(mg, "01", "model", "decoder.layers.1.mlp.linear_fc2.weight", 33)
    code, report = verify(hf, mg, "--dequantize")
    assert code == 1
    assert places(report) == [
        "decoder.layers.1.mlp.linear_fc2.weight (model of rank tp 1, pp 0, ep 0), "
        f"first at index {index}, in {SHARD.format('01')}"
    ]


def test_a_repeated_tensor_of_the_source_that_differs_is_an_error(tmp_path):
    hf, mg = convert_case(tmp_path, "qwen3_tp1_tied")
    path = hf / "model.safetensors"
    shards = sorted(hf.glob("*.safetensors"))
    tensors = {name: value for shard in shards for name, value in load_file(shard).items()}
    for shard in [*shards, *hf.glob("*.index.json")]:
        shard.unlink()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, path)
    assert verify(hf, mg)[0] == 0
    tensors["lm_head.weight"][1, 2] = 3.0
    save_file(tensors, path)
    assert "lm_head.weight differs from model.embed_tokens.weight" in failing(hf, mg)
