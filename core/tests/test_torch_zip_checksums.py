"""CRC-32 of bytes, and of neighbouring blocks."""

import zlib

import pytest

from mscvt.formats.torch_zip.checksums import combine, crc32

DATA = bytes(range(256)) * 300 + b"abc"


@pytest.mark.parametrize("data", [b"", b"a", DATA, bytearray(DATA), memoryview(DATA)[5:]], ids=lambda d: str(len(d)))
def test_checksum_is_that_of_zip_files(data):
    assert crc32(data) == zlib.crc32(data)


@pytest.mark.parametrize("cut", [0, 1, 4096, len(DATA) - 1, len(DATA)])
def test_checksum_of_two_blocks_is_that_of_the_whole(cut):
    assert crc32(DATA[cut:], crc32(DATA[:cut])) == zlib.crc32(DATA)
    assert combine(crc32(DATA[:cut]), crc32(DATA[cut:]), len(DATA) - cut) == zlib.crc32(DATA)


def test_checksums_of_blocks_longer_than_4_gib_are_combined():
    block, length = zlib.crc32(bytes(1 << 20)), 1 << 20
    while length < 8 << 30:
        block, length = combine(block, block, length), length * 2
    # CRC-32 is linear: 2**k zeros multiply it by x**(8 * 2**k), whose exponent repeats after 2**32 - 1
    exponent = 8 * length % (2**32 - 1)
    assert combine(crc32(b"a"), block, length) == shifted(crc32(b"a"), exponent) ^ block


def shifted(value, bits):
    """`value` times x**bits modulo the polynomial of CRC-32, by square and multiply."""

    def times(a, b):  # bit 31 is x**0
        product = 0
        for place in range(31, -1, -1):
            if a >> place & 1:
                product ^= b
            b = (b >> 1) ^ (0xEDB88320 if b & 1 else 0)
        return product

    factor, power = 1 << 31, 1 << 30
    while bits:
        if bits & 1:
            factor = times(factor, power)
        power, bits = times(power, power), bits >> 1
    return times(value, factor)
