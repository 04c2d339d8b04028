"""`mscvt verify` of models whose sides are not the same bytes: padding, decoded weights, repeated tensors."""

import json

import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import mscvt.engine.run
import mscvt.engine.sinks
from golden_cases import CASES, build_source, load_case
from mscvt.cli.app import app
from mscvt.formats.torch_zip.reader import load, tensors_in
from mscvt.testing import content
from verified import SHARD, convert_case, failing, failing_hint, flip, flip_shard, places, verify


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
