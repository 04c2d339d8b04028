"""How fast a core makes elements that are no plain copy, beside one that is; in processor time.

Buffers are as large as those of a conversion, so that what fits into a core's cache does here as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch

from merging import gigabytes_per_second
from mscvt.engine import DEFAULT_MEMORY
from mscvt.engine.blocks import Gatherer, blocks_of
from mscvt.engine.freed import keep_freed_memory
from mscvt.engine.same_bytes import same_bytes
from mscvt.layout.pairs import Loop, Pair
from mscvt.plan.contents import Content, Copy
from mscvt.tensors.bits import PlainTensor
from mscvt.tensors.info import ITEM_SIZES
from mscvt.tensors.quantized.block_fp8 import BLOCK, block_fp8
from mscvt.tensors.quantized.fp4 import GROUP, fp4
from mscvt.tensors.sources import SourceTensor
from mscvt.testing.in_memory import in_memory

_CORES = 2
"""A conversion's buffers are divided among so many threads."""


def plain(dtype: torch.dtype, numel: int) -> PlainTensor:
    """Random elements."""
    return in_memory(torch.randn(numel).to(dtype))


def moved(source: SourceTensor, numel: int, dtype: str) -> Callable[[], object]:
    """What a conversion does with a tensor: block after block, run after run, into other memory."""
    walk = Pair(0, 0, (Loop(numel, 1, 1),))
    content = Content(("target",), dtype, (numel,), (Copy(0, walk),), ("source",))
    limit, width = DEFAULT_MEMORY // _CORES, ITEM_SIZES[dtype]
    buffer, written = (np.zeros(nbytes, np.uint8) for nbytes in (limit, numel * width))

    gatherer = Gatherer(buffer, lambda name: source)

    def work() -> None:
        for block in blocks_of(content, limit):
            at = block.start * width
            for run in gatherer.bytes_of(block):
                written[at : at + len(run)] = run
                at += len(run)

    return work


def compared(rows: int, columns: int) -> Callable[[], object]:
    """What `--verify` does besides: bytes against bytes."""
    ours = np.random.default_rng(0).integers(0, 256, 2 * rows * columns, np.uint8)
    theirs = ours.copy()
    return lambda: same_bytes(ours, theirs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a row for each kind of source."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=16384)
    parser.add_argument("--columns", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()
    rows, columns = asked.rows, asked.columns
    numel = rows * columns
    values = torch.randn(numel).to(torch.float8_e4m3fn).view(rows, columns)
    scales = torch.rand(-(-rows // BLOCK[0]), -(-columns // BLOCK[1])) / 64
    codes = torch.randint(-128, 128, (rows, columns // 2), dtype=torch.int8)
    exponents = torch.randint(120, 130, (rows, columns // GROUP), dtype=torch.uint8).view(torch.float8_e8m0fnu)
    bf16, fp32 = (plain(dtype, numel) for dtype in (torch.bfloat16, torch.float32))
    kinds: dict[str, tuple[int, Callable[[], object]]] = {
        "copy": (2 * numel, moved(bf16, numel, "BF16")),
        "FP8 to bf16": (2 * numel, moved(block_fp8(values, scales), numel, "BF16")),
        "FP4 to bf16": (2 * numel, moved(fp4(codes, exponents), numel, "BF16")),
        "fp32 to bf16": (2 * numel, moved(fp32, numel, "BF16")),
        "bf16 to fp32": (4 * numel, moved(bf16, numel, "F32")),
        "compare": (2 * numel, compared(rows, columns)),
    }
    print("| source | GB/s written of a core | of a copy |\n|---|---|---|")
    copy = None
    for name, (nbytes, work) in kinds.items():
        speed = gigabytes_per_second(nbytes, work, asked.rounds)
        copy = copy or speed
        print(f"| {name} | {speed:.2f} | {speed / copy:.2f} |")


if __name__ == "__main__":
    main()
