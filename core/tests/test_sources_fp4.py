"""FP4 in bytes with E8M0 scales: each code times its power of two, whatever region is read."""

import pytest
import torch
from safetensors.torch import save_file

from mscvt.errors import MscvtError
from mscvt.formats.huggingface.reader import open_source
from mscvt.tensors.computing import values_of
from mscvt.tensors.quantized.fp4 import fp4

CODES = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]
ROWS, COLUMNS = 5, 96


def packed(rows=ROWS, columns=COLUMNS):
    """Bytes, E8M0 scales, and what they mean, element by element."""
    generator = torch.Generator().manual_seed(rows * columns)
    codes = torch.randint(0, 256, (rows, columns // 2), generator=generator, dtype=torch.uint8)
    scales = torch.randint(110, 140, (rows, columns // 32), generator=generator, dtype=torch.uint8)
    values = [
        [
            CODES[(int(codes[i, j // 2]) >> (4 if j % 2 else 0)) & 15] * 2.0 ** (int(scales[i, j // 32]) - 127)
            for j in range(columns)
        ]
        for i in range(rows)
    ]
    return codes.view(torch.int8), scales.view(torch.float8_e8m0fnu), torch.tensor(values, dtype=torch.bfloat16)


def bits(tensor):
    return tensor.contiguous().view(torch.int16)


@pytest.mark.parametrize(
    ("offset", "extents", "strides"),
    [
        (0, (ROWS, COLUMNS), (COLUMNS, 1)),
        (COLUMNS + 33, (3, 40), (COLUMNS, 1)),
        (2 * COLUMNS + 1, (1,), (1,)),
        (31, (2,), (1,)),
        (7, (50, 4), (1, COLUMNS)),
        (90, (COLUMNS,), (1,)),
        (1, (2, 3, 5), (2 * COLUMNS, 32, 3)),
    ],
)
def test_region_is_decoded_to_the_value_of_each_code(offset, extents, strides):
    codes, scales, decoded = packed()
    region = values_of(fp4(codes, scales), offset, extents, strides)
    assert torch.equal(bits(region), bits(decoded.as_strided(extents, strides, offset)))


def test_every_byte_holds_the_even_column_in_its_low_nibble():
    codes = torch.arange(256, dtype=torch.uint8).reshape(16, 16)
    scales = torch.full((16, 1), 127, dtype=torch.uint8).view(torch.float8_e8m0fnu)
    found = values_of(fp4(codes, scales), 0, (512,), (1,))
    expected = [CODES[nibble] for byte in range(256) for nibble in (byte & 15, byte >> 4)]
    assert torch.equal(bits(found), bits(torch.tensor(expected, dtype=torch.bfloat16)))


def test_large_matrix_is_decoded_in_tiles_to_the_same_bytes():
    codes = torch.arange(600 * 512, dtype=torch.int64).remainder(256).to(torch.uint8).reshape(600, 512)
    scales = torch.arange(600 * 32).remainder(29).add(113).to(torch.uint8).reshape(600, 32)
    table = torch.tensor(CODES)
    wide = torch.stack([table[(codes & 15).long()], table[(codes >> 4).long()]], 2).reshape(600, 1024)
    wide *= torch.pow(2.0, scales.float() - 127).repeat_interleave(32, 1)
    found = values_of(fp4(codes, scales.view(torch.float8_e8m0fnu)), 0, (600, 1024), (1024, 1))
    assert torch.equal(bits(found), bits(wide.to(torch.bfloat16)))


def checkpoint(folder, tensors):
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_release_of_fp4_and_fp8_is_shown_as_bf16_and_the_rest_as_it_is(tmp_path):
    codes, scales, decoded = packed()
    fp8, block = torch.ones(130, 4, dtype=torch.float8_e4m3fn), torch.tensor([[127], [129]], dtype=torch.uint8)
    tensors = {
        "experts.w1.weight": codes,
        "experts.w1.scale": scales,
        "attn.wq.weight": fp8,
        "attn.wq.scale": block.view(torch.float8_e8m0fnu),
        "hc.scale": torch.ones(3),
        "norm.weight": torch.ones(4, dtype=torch.bfloat16),
        "gate.tid2eid": torch.ones(4, 2, dtype=torch.int64),
    }
    source = open_source(checkpoint(tmp_path / "hf", tensors), dequantize=True, config={"expert_dtype": "fp4"})
    assert {name: (info.dtype, info.shape) for name, info in source.tensors.items()} == {
        "experts.w1.weight": ("BF16", (ROWS, COLUMNS)),
        "attn.wq.weight": ("BF16", (130, 4)),
        "hc.scale": ("F32", (3,)),
        "norm.weight": ("BF16", (4,)),
        "gate.tid2eid": ("I64", (4, 2)),
    }
    found = values_of(source.tensor("experts.w1.weight"), 0, (ROWS, COLUMNS), (COLUMNS, 1))
    assert torch.equal(bits(found), bits(decoded))
    assert values_of(source.tensor("attn.wq.weight"), 0, (130, 4), (4, 1))[:, 0].tolist() == [1.0] * 128 + [4.0] * 2
    assert values_of(source.tensor("hc.scale"), 0, (3,), (1,)).tolist() == [1.0] * 3


@pytest.mark.parametrize(
    ("shape", "scales"),
    [((5, 48), (5, 2)), ((5, 48), (4, 3)), ((5, 48), (5, 3, 1)), ((5, 40), (5, 3)), ((5, 48, 1), (5, 3))],
)
def test_scales_that_do_not_fit_are_refused_by_name(shape, scales, tmp_path):
    tensors = {
        "w.weight": torch.zeros(shape, dtype=torch.int8),
        "w.scale": torch.zeros(scales, dtype=torch.uint8).view(torch.float8_e8m0fnu),
    }
    with pytest.raises(MscvtError, match=r"scales and weights don't fit each other: w\.weight: I8"):
        open_source(checkpoint(tmp_path / "hf", tensors), dequantize=True)


def test_fp4_needs_scales_that_are_powers_of_two(tmp_path):
    tensors = {"w.weight": torch.zeros(5, 48, dtype=torch.int8), "w.scale": torch.ones(5, 3)}
    with pytest.raises(MscvtError, match=r"w\.weight: I8 \[5, 48\] with scales F32 \[5, 3\], expected one F8_E8M0"):
        open_source(checkpoint(tmp_path / "hf", tensors), dequantize=True)
