"""`--dequantize`: FP8 blocks decode to exactly `(value as f32) * scale`, rounded to bf16."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from golden_cases import CASES, load_case, megatron_digests
from mscvt.cli.app import app
from mscvt.errors import MscvtError
from mscvt.formats.huggingface.reader import open_source
from mscvt.tensors.computing import values_of
from mscvt.tensors.quantized.block_fp8 import block_fp8
from mscvt.tensors.quantized.matrix import DecodedMatrix
from mscvt.testing import content

DTYPE = torch.float8_e4m3fn


def scales_of(name, shape):
    """One f32 scale for each block of 128 x 128, of which no two are equal."""
    blocks = [-(-size // 128) for size in shape]
    drawn = content(name + "_scale_inv", blocks, "F32").abs()
    return (torch.frexp(drawn).mantissa + torch.arange(drawn.numel()).reshape(blocks)) / 64


def quantized(name, shape):
    """Values and scales, and what they mean, element by element."""
    values, scales = content(name, shape, "F8_E4M3"), scales_of(name, shape)
    decoded = torch.empty(shape, dtype=torch.bfloat16)
    for i in range(0, shape[0], 128):
        for j in range(0, shape[1], 128):
            block = values[i : i + 128, j : j + 128].to(torch.float32)
            decoded[i : i + 128, j : j + 128] = (block * scales[i // 128, j // 128]).to(torch.bfloat16)
    return values, scales, decoded


def bits(tensor):
    return tensor.contiguous().view(torch.int16)


SHAPES = [(200, 300), (1, 1), (128, 128), (127, 129), (256, 128), (129, 255), (300, 40), (3, 500)]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_element_is_decoded_with_the_scale_of_its_block(shape):
    values, scales, decoded = quantized("w", shape)
    source = block_fp8(values, scales)
    assert torch.equal(bits(source.decode(0, shape[0], 0, shape[1])), bits(decoded))
    assert torch.equal(bits(values_of(source, 0, shape, (shape[1], 1))), bits(decoded))


@pytest.mark.parametrize(
    ("offset", "extents", "strides"),
    [
        (0, (1, 1), (300, 1)),
        (130 * 300 + 131, (60, 160), (300, 1)),
        (100 * 300, (50, 300), (300, 1)),
        (127 * 300 + 127, (2, 2), (300, 1)),
        (60 * 300 + 7, (290, 90), (1, 300)),
        (20 * 300 + 250, (3, 5, 10), (50 * 300, 3 * 300, 2)),
        (59_999, (1,), (1,)),
        (299, (302,), (1,)),
        (299, (2,), (1,)),
        (40_000, (20_000,), (1,)),
    ],
)
def test_region_that_begins_inside_a_block_is_decoded_exactly(offset, extents, strides):
    values, scales, decoded = quantized("w", (200, 300))
    region = values_of(block_fp8(values, scales), offset, extents, strides)
    assert torch.equal(bits(region), bits(decoded.as_strided(extents, strides, offset)))


@pytest.mark.parametrize(
    ("offset", "extents", "strides", "box"),
    [
        (130 * 70 + 5, (3, 60), (70, 1), (130, 133, 5, 65)),
        (10 * 70 + 60, (4, 500), (1, 70), (10, 510, 60, 64)),
        (2 * 70 + 60, (20,), (1,), (2, 4, 0, 70)),
    ],
)
def test_only_the_rows_and_columns_of_a_region_are_decoded(offset, extents, strides, box):
    values, scales, decoded = quantized("w", (600, 70))
    asked, source = [], block_fp8(values, scales)
    watched = DecodedMatrix(source.columns, lambda *where: asked.append(where) or source.decode(*where))
    region = values_of(watched, offset, extents, strides)
    assert asked == [box]
    assert torch.equal(bits(region), bits(decoded.as_strided(extents, strides, offset)))


SCALE_DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float8_e8m0fnu]


@pytest.mark.parametrize("dtype", SCALE_DTYPES, ids=str)
def test_scales_of_every_dtype_mean_their_value(dtype):
    values, scales, _ = quantized("w", (130, 200))
    scales = scales.to(dtype)
    wide = torch.tensor([[float(x) for x in row] for row in scales.to(torch.float32)])
    expected = (values.to(torch.float32) * wide.repeat_interleave(128, 0)[:130].repeat_interleave(128, 1)[:, :200]).to(
        torch.bfloat16
    )
    assert torch.equal(bits(values_of(block_fp8(values, scales), 0, (130, 200), (200, 1))), bits(expected))


@pytest.mark.parametrize("byte", [0, 1, 126, 127, 128, 253, 254, 255])
def test_e8m0_scale_is_its_power_of_two(byte):
    values = torch.tensor([[1.0, -1.5]]).to(DTYPE)
    scales = torch.tensor([[byte]], dtype=torch.uint8).view(torch.float8_e8m0fnu)
    found = values_of(block_fp8(values, scales), 0, (1, 2), (2, 1)).to(torch.float64)[0].tolist()
    if byte == 255:
        assert all(map(math.isnan, found))
    else:
        assert found == [2.0 ** (byte - 127), -1.5 * 2.0 ** (byte - 127)]


ALL_CODES = torch.arange(256, dtype=torch.uint8).view(DTYPE)
NUMBERS = torch.arange(256, dtype=torch.uint8)[(torch.arange(256) & 127) != 127].view(DTYPE)


@pytest.mark.parametrize(
    "codes", [ALL_CODES, NUMBERS, ALL_CODES[:128], ALL_CODES[128:]], ids=["all", "numbers", "positive", "negative"]
)
@pytest.mark.parametrize("scale", [1.0, -0.7, 0.0, 255.99, 256.0, 3e38, 1e-30, 1e-45, float("inf"), float("nan")])
def test_every_code_with_any_scale_is_the_product_rounded_once(codes, scale):
    values, scales = codes[None], torch.tensor([[scale]]).repeat(1, 2)
    found = values_of(block_fp8(values, scales), 0, values.shape, (len(codes), 1))
    expected = (values.to(torch.float32) * torch.tensor(scale)).to(torch.bfloat16)
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(bits(found)[~found.isnan()], bits(expected)[~expected.isnan()])


def test_blocks_of_another_size_have_their_own_scales():
    values, scales = content("w", (50, 70), "F8_E4M3"), torch.arange(1.0, 29.0).reshape(4, 7) / 8
    expected = torch.tensor(
        [[float(values[i, j]) * float(scales[i // 16, j // 10]) for j in range(70)] for i in range(50)]
    ).to(torch.bfloat16)
    region = values_of(block_fp8(values, scales, (16, 10)), 5 * 70 + 3, (40, 60), (70, 1))
    assert torch.equal(bits(region), bits(expected[5:45, 3:63]))


def test_blocks_much_larger_than_the_matrix_take_no_memory_for_the_rest():
    values, scales = content("w", (5, 7), "F8_E4M3"), torch.tensor([[1.5]])
    decoded = block_fp8(values, scales, (1 << 45, 1 << 45)).decode(0, 5, 0, 7)
    assert torch.equal(bits(decoded), bits((values.to(torch.float32) * 1.5).to(torch.bfloat16)))


def test_large_matrix_is_decoded_in_tiles_to_the_same_bytes():
    values, scales, decoded = quantized("w", (700, 1000))
    assert torch.equal(bits(values_of(block_fp8(values, scales), 0, (700, 1000), (1000, 1))), bits(decoded))


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output


CASE = load_case(CASES / "deepseek3_tp2_pp2_ep2_mtp1_gemm.json")
LARGE = {
    "hidden_size": 200,
    "intermediate_size": 300,
    "moe_intermediate_size": 130,
    "q_lora_rank": 140,
    "num_hidden_layers": 2,
}


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """The same small model twice: as an FP8 release and decoded."""
    root = tmp_path_factory.mktemp("release")
    config = CASE["hf"]["config"] | LARGE
    sizes = {48: 200, 64: 300, 24: 130, 20: 140, 96: 400}
    plain, release = {}, {}
    for old, (shape, dtype, *shared) in CASE["hf"]["tensors"].items():
        number = int(old.split(".")[2]) if ".layers." in old else 0
        if number not in (0, 1, 8):
            continue
        new = [resized(old, axis, size, sizes) for axis, size in enumerate(shape)]
        name = old.replace(".layers.8.", ".layers.2.")
        source = shared[0].replace(".layers.8.", ".layers.2.") if shared else name
        plain[name] = release[name] = content(source, new, {"bf16": "BF16", "f32": "F32"}[dtype])
        if len(new) == 2 and "_proj" in name and "eh_proj" not in name:
            release[name], release[name + "_scale_inv"], plain[name] = quantized(name, new)
    config["vocab_size"] = 400
    for kind, tensors in (("plain", plain), ("fp8", release)):
        (root / kind).mkdir()
        said = config if kind == "plain" else config | {"quantization_config": {"quant_method": "fp8"}}
        (root / kind / "config.json").write_text(json.dumps(said))
        save_file(tensors, root / kind / "model.safetensors", metadata={"format": "pt"})
    return root


def resized(name, axis, size, sizes):
    """The size of an axis in the larger model; products of heads and ranks stay as they are."""
    if name.endswith("mlp.gate.weight") and axis == 0:
        return size
    if "shared_experts" in name and size == 48 and axis == (1 if "down" in name else 0):
        return 260
    if size == 96 and "embed_tokens" not in name and "head.weight" not in name:
        return 400 if "eh_proj" in name and axis == 1 else size
    return sizes.get(size, size)


OPTIONS = ["--target-tensor-parallel-size", "2", "--target-expert-parallel-size", "2", "--mtp-num-layers", "1"]


@pytest.mark.parametrize("more", [[], ["--moe-grouped-gemm"], ["--mla-mm-split", "--moe-tp-extend-ep"]], ids=" ".join)
def test_release_converts_to_the_same_bytes_as_its_decoded_copy(more, release, tmp_path):
    for kind, options in (("plain", []), ("fp8", ["--dequantize", "--max-memory", "131072"])):
        run("hf2mg", "--load-dir", release / kind, "--save-dir", tmp_path / kind, *OPTIONS, *more, *options)
    assert megatron_digests(tmp_path / "fp8") == megatron_digests(tmp_path / "plain")


def test_way_back_drops_the_quantization_of_config(release, tmp_path):
    mg, back = tmp_path / "mg", tmp_path / "back"
    run("hf2mg", "--dequantize", "--load-dir", release / "fp8", "--save-dir", mg, *OPTIONS)
    run("mg2hf", "--load-dir", mg, "--save-dir", back, "--hf-cfg-dir", release / "fp8")
    before = json.loads((release / "fp8" / "config.json").read_text())
    after = json.loads((back / "config.json").read_text())
    assert before.pop("quantization_config")
    assert after == before
    expected, found = load_file(release / "plain" / "model.safetensors"), load_file(next(back.glob("*.safetensors")))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name].view(torch.uint8), expected[name].view(torch.uint8)) for name in expected)


def checkpoint(folder, tensors):
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_scales_are_refused_where_decoding_was_not_asked_for(tmp_path):
    values, scales, _ = quantized("w", (200, 300))
    folder = checkpoint(tmp_path / "hf", {"w": values, "w_scale_inv": scales})
    with pytest.raises(MscvtError, match="1 weights are FP8") as caught:
        open_source(folder)
    assert "--dequantize" in caught.value.hint


@pytest.mark.parametrize(
    ("values", "scales"),
    [
        (torch.zeros(200, 300, dtype=DTYPE), torch.ones(2, 2)),
        (torch.zeros(200, 300, dtype=DTYPE), torch.ones(3, 2)),
        (torch.zeros(200, 300, dtype=DTYPE), torch.ones(2, 3, dtype=torch.int32)),
        (torch.zeros(200, 300, dtype=torch.bfloat16), torch.ones(2, 3)),
        (torch.zeros(200, 300, dtype=torch.float8_e5m2), torch.ones(2, 3)),
        (torch.zeros(200, dtype=DTYPE), torch.ones(2)),
        (torch.zeros(2, 200, 300, dtype=DTYPE), torch.ones(1, 2, 3)),
    ],
)
def test_scales_that_do_not_fit_are_refused_by_name(values, scales, tmp_path):
    folder = checkpoint(tmp_path / "hf", {"w": values, "w_scale_inv": scales})
    with pytest.raises(MscvtError, match="scales and weights don't fit each other: w: "):
        open_source(folder, dequantize=True)


def test_fp8_weight_without_scales_is_refused_where_others_are_decoded(tmp_path):
    values, scales, _ = quantized("w", (200, 300))
    folder = checkpoint(tmp_path / "hf", {"w": values, "w_scale_inv": scales, "x": torch.zeros(3, 5, dtype=DTYPE)})
    with pytest.raises(MscvtError, match="x: F8_E4M3 and no x_scale_inv"):
        open_source(folder, dequantize=True)
