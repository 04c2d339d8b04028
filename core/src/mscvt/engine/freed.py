"""Memory that is freed and taken again."""

from __future__ import annotations

import numpy as np

_LARGEST = (32 << 20) - (1 << 16)
"""Bytes; glibc follows no larger block (`mallopt(3)`, M_MMAP_THRESHOLD)."""


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for whoever takes memory next, in place of giving it back to the system.

    It does so from the size of the largest block on that it has mapped and unmapped. Blocks that are computed, such as
    decoded ones, are taken and freed a thousand times a second, and fetching their pages anew took half of the time.
    """
    np.empty(_LARGEST, np.uint8)
