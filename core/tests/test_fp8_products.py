"""FP8 values times their scales: every code, with scales of every kind, in each of the two ways of multiplying."""

from unittest.mock import patch

import numpy as np
import pytest
import torch

from mscvt.tensors.quantized import block_fp8 as module
from mscvt.tensors.quantized.block_fp8 import block_fp8, by_channel, by_element, is_exact


def by_definition(scales):
    """bf16 of every code with every scale, from the formats' definitions: bits `[scales, codes]`."""
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    values = np.where(exponent == 0, mantissa * 2.0**-9, np.ldexp(8.0 + mantissa, exponent - 10))
    values = np.where(code & 127 == 127, np.nan, np.where(code > 127, -values, values))
    with np.errstate(over="ignore", invalid="ignore"):
        products = (scales.astype(np.float64)[:, None] * values).astype(np.float32)  # exact in f64, rounded once
    bits = products.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16  # to nearest, ties to even; from the largest on to infinity
    return np.where(np.isnan(products), 0x7FC0, rounded).astype(np.uint16)


RANDOM = np.random.default_rng(5).integers(0, 1 << 32, 6000, dtype=np.uint32).view(np.float32)
POWERS = np.ldexp(np.float32(1), np.arange(-149, 128)).astype(np.float32)
TIES = np.ldexp(np.arange(128, 256) * 2 + 1, np.arange(128) % 200 - 100).astype(np.float32)
"""Scales of nine bits, of whose products many lie in the middle between two values of bf16."""
ODD = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 2.0**120, -np.finfo(np.float32).max], np.float32)


@pytest.mark.parametrize("are_usual", [True, False], ids=["usual", "any"])
def test_all_codes_with_thousands_of_scales_are_what_the_definition_says(are_usual):
    scales = np.concatenate([RANDOM, POWERS, TIES, -POWERS, -TIES, ODD])
    if are_usual:
        scales = np.abs(scales)
        scales = scales[(scales > 0) & (scales < 256)]
    codes = torch.arange(256, dtype=torch.uint8).repeat(3, len(scales)).view(torch.float8_e4m3fn)
    source = block_fp8(codes, torch.from_numpy(scales)[None], (3, 256))
    found = source.region(0, (3, len(scales), 256), (codes.shape[1], 256, 1)).view(np.uint16)
    are_nan = (found & 0x7FFF) > 0x7F80
    expected = by_definition(scales)
    for row in np.where(are_nan, 0x7FC0, found):
        assert np.array_equal(row, expected)


@pytest.mark.parametrize("shape", [(700, 1000), (130, 257), (3, 128), (1, 1)])
def test_both_ways_of_multiplying_give_the_same_bits(shape):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(4)).mul(9).to(torch.float8_e4m3fn)
    scales = torch.rand([-(-size // 128) for size in shape], generator=torch.Generator().manual_seed(5))
    found = []
    for way in (by_channel, by_element):
        other = by_element if way is by_channel else by_channel
        with (
            patch.object(module, "is_exact", lambda way=way: way is by_channel),
            patch.object(module, other.__name__, None),  # which is not called
        ):
            found.append(block_fp8(values, scales).region(0, shape, (shape[1], 1)).copy())
    assert np.array_equal(*found)


def test_nan_has_the_same_bits_in_every_region():
    codes = torch.full((5, 300), 0x7F, dtype=torch.uint8)
    codes[:, ::3] = 0x38
    source = block_fp8(codes.view(torch.float8_e4m3fn), torch.ones(1, 3))
    whole = source.region(0, (5, 300), (300, 1)).copy()
    assert len(np.unique(whole)) == 2
    for left, right in ((0, 1), (1, 2), (7, 60), (100, 300)):
        assert np.array_equal(source.region(left, (5, right - left), (300, 1)), whole[:, left:right])


def test_machine_whose_other_way_differs_is_found_out():
    def way_with(shift, variance):
        def neutral(blocks):
            return torch.zeros(blocks), torch.full((blocks,), shift), torch.full((blocks,), variance), torch.empty(0)

        return patch.object(module, "_neutral", neutral)

    for shift, variance, is_right in ((-0.0, 1.0, True), (0.0, 1.0, False), (-0.0, 1 + 2.0**-20, False)):
        with way_with(shift, variance):
            assert is_exact.__wrapped__() is is_right
