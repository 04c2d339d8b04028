"""bitsandbytes' 8-bit weights: each value times the scale of its row and 1/127, as bitsandbytes itself computes it."""

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

CONFIG = {"dtype": "bfloat16", "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
ROW_BY_ROW = torch.tensor(0, dtype=torch.uint8)


def quantized(shape, dtype="bfloat16", module="w"):
    """The tensors of a weight, and what they mean, computed one element after another."""
    random = np.random.Generator(np.random.PCG64(shape[0]))
    values = random.integers(-128, 128, shape).astype(np.int8)
    scales = random.random(shape[0]).astype(np.float32) * np.float32(0.4)
    step = np.float32(1 / 127)
    decoded = [[np.float32(value) * scale * step for value in row] for row, scale in zip(values, scales, strict=True)]
    tensors = {"weight": torch.from_numpy(values), "SCB": torch.from_numpy(scales), "weight_format": ROW_BY_ROW.clone()}
    parts = {f"{module}.{name}": tensor for name, tensor in tensors.items()}
    return parts, torch.from_numpy(np.array(decoded, np.float32)).to(getattr(torch, dtype))


def opened(folder, tensors, config=CONFIG, *, dequantize=True):
    folder.mkdir(exist_ok=True)
    save_file(tensors | {"norm.weight": torch.ones(3)}, folder / "model.safetensors")
    return open_source(folder, dequantize=dequantize, config=config)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("shape", [(6, 128), (7, 33), (1, 1), (700, 500)], ids=str)
def test_every_element_is_its_value_times_the_scale_of_its_row(shape, dtype, tmp_path):
    tensors, decoded = quantized(shape, dtype)
    source = opened(tmp_path / "hf", tensors, CONFIG | {"dtype": None, "torch_dtype": dtype})
    assert {name: info.shape for name, info in source.tensors.items()} == {"w.weight": shape, "norm.weight": (3,)}
    found = values_of(source.tensor("w.weight"), 0, shape, (shape[1], 1))
    assert found.dtype == decoded.dtype
    assert torch.equal(found, decoded)
    definition = tensors["w.weight"] * tensors["w.SCB"].view(-1, 1) * 7.874015718698502e-3
    assert torch.equal(found, definition.to(decoded.dtype))


def test_region_of_a_weight_is_decoded_exactly(tmp_path):
    tensors, decoded = quantized((9, 33))
    tensor = opened(tmp_path / "hf", tensors).tensor("w.weight")
    for offset, extents, strides in (
        (36, (5, 20), (33, 1)),
        (80, (9, 4), (1, 33)),
        (31, (38,), (1,)),
        (296, (1,), (1,)),
    ):
        assert torch.equal(values_of(tensor, offset, extents, strides), decoded.as_strided(extents, strides, offset))


WEIGHT = torch.zeros(4, 6, dtype=torch.int8)
DAMAGES = {
    "no_scale": ({"w.SCB": None}, "w.weight: I8, and nothing beside it to decode it with"),
    "no_weight": ({"w.weight": None}, "w.SCB: there is no w.weight that it is the scale of"),
    "scale_short": ({"w.SCB": torch.ones(3)}, r"with scales F32 \[3\], expected I8 of two dimensions"),
    "scale_wide": ({"w.SCB": torch.ones(4, dtype=torch.float64)}, "with scales F64"),
    "weight_of_bf16": ({"w.weight": WEIGHT.bfloat16()}, r"BF16 \[4, 6\] with scales"),
    "weight_flat": ({"w.weight": WEIGHT[:, 0].clone()}, r"I8 \[4\] with scales"),
    "tiled": ({"w.weight_format": torch.tensor(2, dtype=torch.uint8)}, "weight_format says format 2, expected 0"),
    "format_long": ({"w.weight_format": torch.zeros(9, dtype=torch.uint8)}, r"is U8 \[9\], expected one U8"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_weight_whose_parts_do_not_fit_is_refused_by_name(damage, tmp_path):
    changes, said = DAMAGES[damage]
    parts = {"w.weight": WEIGHT, "w.SCB": torch.ones(4), "w.weight_format": ROW_BY_ROW} | changes
    with pytest.raises(MscvtError, match=said):
        opened(tmp_path / "hf", {name: tensor for name, tensor in parts.items() if tensor is not None})


def test_model_of_no_dtype_says_how_to_give_one(tmp_path):
    tensors, _ = quantized((4, 6))
    with pytest.raises(MscvtError, match="nothing says to which dtype") as caught:
        opened(tmp_path / "hf", tensors, CONFIG | {"dtype": "int8"})
    assert '"dtype": "bfloat16"' in caught.value.hint


def test_weights_are_refused_where_decoding_was_not_asked_for(tmp_path):
    tensors, _ = quantized((4, 6))
    with pytest.raises(MscvtError, match=r"1 weights are bitsandbytes int8 .* for example 'w\.weight'") as caught:
        opened(tmp_path / "hf", tensors, {"dtype": "bfloat16"}, dequantize=False)
    assert "--dequantize" in caught.value.hint


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_whole_numbers_are_not_taken_for_weights(dtype, tmp_path):
    with pytest.raises(MscvtError, match=r"w\.weight: .8, and nothing beside it to decode it with"):
        opened(tmp_path / "hf", {"w.weight": torch.zeros(4, 6, dtype=dtype)}, {}, dequantize=False)


def test_quantized_model_converts_to_the_same_bytes_as_its_decoded_copy(tmp_path):
    source = HuggingFaceSource(build_source(load_case(GOLDEN / "qwen3_tp2_pp2_tied.json"), tmp_path / "hf"))
    config = json.loads((tmp_path / "hf" / "config.json").read_text()) | {"dtype": "bfloat16"}
    plain, packed = {}, {}
    for name, info in source.tensors.items():
        if "_proj" in name:
            parts, plain[name] = quantized(info.shape, module=name.removesuffix(".weight"))
            packed |= parts
        else:
            strides = (info.shape[-1], 1)[-len(info.shape) :]
            plain[name] = packed[name] = values_of(source.tensor(name), 0, info.shape, strides).clone()
    for kind, tensors, said in (("plain", plain, config), ("8bit", packed, config | CONFIG)):
        (tmp_path / kind).mkdir()
        save_file(tensors, tmp_path / kind / "model.safetensors")
        (tmp_path / kind / "config.json").write_text(json.dumps(said))
    options = ["--target-tensor-parallel-size", "2", "--target-pipeline-parallel-size", "2"]
    for kind, target, more in (("plain", "a", []), ("8bit", "b", ["--dequantize", "--verify"])):
        command = ["hf2mg", "--load-dir", tmp_path / kind, "--save-dir", tmp_path / target, *options, *more]
        result = CliRunner().invoke(app, list(map(str, command)), catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert megatron_digests(tmp_path / "b") == megatron_digests(tmp_path / "a")
