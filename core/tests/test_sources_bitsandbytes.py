"""bitsandbytes' 4-bit weights: the value of each element follows from its code and the scale of its block."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from golden_cases import CASES as GOLDEN
from golden_cases import build_source, load_case, megatron_digests
from mscvt.cli.app import app
from mscvt.errors import MscvtError
from mscvt.formats.huggingface.reader import HuggingFaceSource, open_source
from mscvt.tensors.computing import values_of

TORCH = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def quantized(shape, *, kind="nf4", blocksize=64, nested=None, dtype="bfloat16", storage=torch.uint8):
    """The tensors of a weight `w` and what it means, computed one element after another."""
    numel = int(np.prod(shape))
    random = np.random.Generator(np.random.PCG64(numel + blocksize))
    codes = random.integers(0, 16, numel + numel % 2)
    packed = torch.from_numpy((codes[0::2] * 16 + codes[1::2]).astype(np.uint8))
    padding = -len(packed) % storage.itemsize
    packed = torch.cat([packed, torch.zeros(padding, dtype=torch.uint8)]).view(storage)[:, None]
    table = random.standard_normal(16).astype(np.float32)
    blocks = -(-numel // blocksize)
    state = {"quant_type": kind, "blocksize": blocksize, "dtype": dtype, "shape": list(shape)}
    tensors = {"w": packed, "w.quant_map": torch.from_numpy(table)}
    if nested:
        inner, outer = random.integers(0, 256, blocks), random.random(-(-blocks // nested)).astype(np.float32)
        inner_table, offset = random.standard_normal(256).astype(np.float32), np.float32(0.37)
        state |= {"nested_blocksize": nested, "nested_dtype": "float32", "nested_offset": float(offset)}
        tensors |= {
            "w.absmax": torch.from_numpy(inner.astype(np.uint8)),
            "w.nested_absmax": torch.from_numpy(outer),
            "w.nested_quant_map": torch.from_numpy(inner_table),
        }
        scales = [np.float32(inner_table[a] * outer[b // nested]) + offset for b, a in enumerate(inner)]
    else:
        scales = random.random(blocks).astype(np.float32)
        tensors["w.absmax"] = torch.from_numpy(scales)
    text = json.dumps(state).encode()
    tensors[f"w.quant_state.bitsandbytes__{kind}"] = torch.tensor(list(text), dtype=torch.uint8)
    values = [table[codes[n]] * scales[n // blocksize] for n in range(numel)]
    return tensors, torch.from_numpy(np.array(values, np.float32)).to(TORCH[dtype]).reshape(shape)


def opened(folder, tensors, **config):
    folder.mkdir(exist_ok=True)
    save_file(tensors | {"norm": torch.ones(3, dtype=torch.bfloat16)}, folder / "model.safetensors")
    said = {"quant_method": "bitsandbytes", "load_in_4bit": True, **config}
    return open_source(folder, dequantize=True, config={"quantization_config": said})


def assert_same(found, expected):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert torch.equal(found.contiguous().view(torch.uint8), expected.contiguous().view(torch.uint8))


CASES = {
    "nf4": {},
    "fp4": {"kind": "fp4"},
    "nested": {"nested": 256},
    "nested_small": {"nested": 3, "kind": "fp4"},
    "blocksize_128": {"blocksize": 128},
    "blocksize_4096": {"blocksize": 4096, "nested": 256},
    "float16": {"dtype": "float16"},
    "float32": {"dtype": "float32", "nested": 16},
    "stored_as_bf16": {"storage": torch.bfloat16},
    "stored_as_f32": {"storage": torch.float32, "nested": 256},
}
SHAPES = [(6, 128), (5, 96), (7, 33), (3, 1), (1, 640), (40, 64)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_every_element_is_its_code_times_the_scale_of_its_block(case, shape, tmp_path):
    tensors, decoded = quantized(shape, **CASES[case])
    source = opened(tmp_path / "hf", tensors)
    assert {name: info.shape for name, info in source.tensors.items()} == {"w": shape, "norm": (3,)}
    assert_same(values_of(source.tensor("w"), 0, shape, (shape[1], 1)), decoded)
    assert values_of(source.tensor("norm"), 0, (3,), (1,)).tolist() == [1.0] * 3


@pytest.mark.parametrize("columns", [128, 96, 33])
@pytest.mark.parametrize("nested", [None, 5])
def test_region_that_begins_inside_a_block_is_decoded_exactly(columns, nested, tmp_path):
    tensors, decoded = quantized((9, columns), nested=nested)
    tensor = opened(tmp_path / "hf", tensors).tensor("w")
    for offset, extents, strides in (
        (columns + 3, (5, 20), (columns, 1)),
        (2 * columns + 17, (9, 4), (1, columns)),
        (columns - 2, (columns + 5,), (1,)),
        (5, (2, 3, 2), (3 * columns, columns, 7)),
        (9 * columns - 1, (1,), (1,)),
    ):
        assert_same(values_of(tensor, offset, extents, strides), decoded.as_strided(extents, strides, offset))


def test_large_weight_is_decoded_in_tiles_to_the_same_bytes(tmp_path):
    tensors, decoded = quantized((700, 448), nested=256)
    assert_same(values_of(opened(tmp_path / "hf", tensors).tensor("w"), 0, (700, 448), (448, 1)), decoded)


def state(**changes):
    said = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [5, 96]} | changes
    return torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)


STATE = "w.quant_state.bitsandbytes__nf4"
NESTED = {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.5}
DAMAGES = {
    "no_state": ({STATE: None}, "w.absmax: there is no w.quant_state"),
    "no_weight": ({"w": None}, "there is no w"),
    "no_absmax": ({"w.absmax": None}, "there is no w.absmax"),
    "no_quant_map": ({"w.quant_map": None}, "there is no w.quant_map"),
    "absmax_short": ({"w.absmax": torch.ones(7)}, r"w.absmax is F32 \[7\], expected F32 \[8\]"),
    "absmax_wide": ({"w.absmax": torch.ones(8, dtype=torch.float64)}, "w.absmax is F64"),
    "quant_map_of_8_bits": ({"w.quant_map": torch.ones(256)}, r"expected F32 \[16\]"),
    "packed_short": ({"w": torch.zeros(239, 1, dtype=torch.uint8)}, "has 239 bytes, expected 240"),
    "packed_long": ({"w": torch.zeros(300, 1, dtype=torch.uint8)}, "has 300 bytes, expected 240"),
    "state_no_json": ({STATE: torch.tensor([123, 123], dtype=torch.uint8)}, "is no description"),
    "state_deep": ({STATE: torch.full((60_000,), 91, dtype=torch.uint8)}, "is no description"),
    "state_long": ({STATE: torch.full((70_000,), 32, dtype=torch.uint8)}, "is no description"),
    "state_list": ({STATE: torch.tensor([91, 93], dtype=torch.uint8)}, "is no description"),
    "dtype": ({STATE: state(dtype="int8")}, "says dtype 'int8'"),
    "dtype_list": ({STATE: state(dtype=["x"])}, "says dtype"),
    "shape_negative": ({STATE: state(shape=[-5, -96])}, "says dtype"),
    "shape_huge": ({STATE: state(shape=[2**39, 2**39])}, "says dtype"),
    "shape_text": ({STATE: state(shape="5")}, "says dtype"),
    "blocksize_zero": ({STATE: state(blocksize=0)}, "blocksize 0"),
    "blocksize_odd": ({STATE: state(blocksize=63)}, "blocksize 63"),
    "nested_without_tables": ({STATE: state(**NESTED), "w.absmax": torch.ones(8, dtype=torch.uint8)}, "nested_absmax"),
    "nested_offset_text": ({STATE: state(**NESTED | {"nested_offset": "1"})}, "nested_offset '1'"),
    "kind": ({STATE: None, "w.quant_state.bitsandbytes__nf3": state()}, "unknown kind"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_weight_whose_parts_do_not_fit_is_refused_by_name(damage, tmp_path):
    changes, said = DAMAGES[damage]
    tensors, _ = quantized((5, 96))
    changed = {name: tensor for name, tensor in (tensors | changes).items() if tensor is not None}
    with pytest.raises(MscvtError, match=said):
        opened(tmp_path / "hf", changed)


def test_weights_are_refused_where_decoding_was_not_asked_for(tmp_path):
    tensors, _ = quantized((5, 96))
    (tmp_path / "hf").mkdir()
    save_file(tensors, tmp_path / "hf" / "model.safetensors")
    with pytest.raises(MscvtError, match="1 weights are NF4 with scales of their own, for example 'w'") as caught:
        open_source(tmp_path / "hf")
    assert "--dequantize" in caught.value.hint


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_quantized_model_converts_to_the_same_bytes_as_its_decoded_copy(tmp_path):
    source = HuggingFaceSource(build_source(load_case(GOLDEN / "qwen3_tp2_pp2_tied.json"), tmp_path / "hf"))
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    plain, packed = {}, {}
    for number, (name, info) in enumerate(source.tensors.items()):
        if "_proj" in name:
            parts, plain[name] = quantized(
                info.shape, nested=256 if number % 2 else None, kind=("nf4", "fp4")[number % 3 % 2]
            )
            packed |= {part.replace("w", name, 1): tensor for part, tensor in parts.items()}
        else:
            strides = (info.shape[-1], 1)[-len(info.shape) :]
            plain[name] = packed[name] = values_of(source.tensor(name), 0, info.shape, strides).clone()
    for kind, tensors, said in (("plain", plain, {}), ("4bit", packed, {"quant_method": "bitsandbytes"})):
        (tmp_path / kind).mkdir()
        save_file(tensors, tmp_path / kind / "model.safetensors")
        text = json.dumps(config | ({"quantization_config": said} if said else {}))
        (tmp_path / kind / "config.json").write_text(text)
    options = ["--target-tensor-parallel-size", "2", "--target-pipeline-parallel-size", "2"]
    run("hf2mg", "--load-dir", tmp_path / "plain", "--save-dir", tmp_path / "a", *options)
    run("hf2mg", "--load-dir", tmp_path / "4bit", "--save-dir", tmp_path / "b", *options, "--dequantize", "--verify")
    assert megatron_digests(tmp_path / "b") == megatron_digests(tmp_path / "a")
    run("verify", "--hf", tmp_path / "4bit", "--mg", tmp_path / "a", "--dequantize")
