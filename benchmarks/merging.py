"""How fast a core merges factors of LoRA into a weight, beside a core that copies the weight; in processor time.

Blocks are as large as those of a conversion with two cores, and go where they would.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from mscvt.engine import DEFAULT_MEMORY
from mscvt.engine.blocks import move
from mscvt.tensors.adapted import AdaptedMatrix
from mscvt.tensors.bits import KINDS
from mscvt.tensors.sources import SourceTensor, is_computed
from mscvt.testing.in_memory import in_memory


def gigabytes_per_second(nbytes: int, work: Callable[[], object], rounds: int) -> float:
    """Bytes of the weight by the processor time of the fastest round."""
    best = float("inf")
    for _ in range(rounds):
        began = time.thread_time()
        work()
        best = min(best, time.thread_time() - began)
    return nbytes / best / 1e9


def moved(source: SourceTensor, rows: int, columns: int, *, is_transposed: bool = False) -> Callable[[], object]:
    """What a conversion does with a matrix in bf16, block after block."""
    height = max(1, DEFAULT_MEMORY // 4 // columns)
    buffer = np.empty(height * columns, KINDS["BF16"])

    def work() -> None:
        for first in range(0, rows, height):
            count = min(height, rows - first)
            target = buffer[: count * columns]
            target = target.reshape(columns, count).T if is_transposed else target.reshape(count, columns)
            if is_computed(source):
                source.write(target, "BF16", first * columns, (columns, 1), move)
            else:
                move(target, "BF16", source.region(first * columns, (count, columns), (columns, 1)), "BF16")

    return work


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a row for each rank."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--columns", type=int, default=8192)
    parser.add_argument("--ranks", type=int, nargs="*", default=[4, 16, 64])
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows, columns = asked.rows, asked.columns
    weight = in_memory(torch.randn(rows * columns).bfloat16())
    print("| what | bf16 factors | f32 factors | bf16 factors, transposed |\n|---|---|---|---|")

    def speed(source: SourceTensor, *, is_transposed: bool = False) -> str:
        work = moved(source, rows, columns, is_transposed=is_transposed)
        return f"{gigabytes_per_second(2 * rows * columns, work, asked.rounds):.2f}"

    print(f"| copy | {speed(weight)} | | {speed(weight, is_transposed=True)} |")
    for rank in asked.ranks:
        factors = [torch.randn(size * rank) / 16 for size in (rows, columns)]
        narrow, wide = (
            AdaptedMatrix(weight, *(factor.to(dtype) for factor in factors), rank, columns, 2.0)
            for dtype in (torch.bfloat16, torch.float32)
        )
        print(f"| merge, rank {rank} | {speed(narrow)} | {speed(wide)} | {speed(narrow, is_transposed=True)} |")
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    made = torch.empty(1024, 1024)
    flops = 2 * 1024**3 * gigabytes_per_second(1, lambda: torch.mm(left, right, out=made), 20)
    bounds = ", ".join(f"{flops / rank:.2f} at rank {rank}" for rank in asked.ranks)
    print(f"\nProducts of matrices alone: {flops:.0f} GFLOP/s, which would be {bounds}.")


if __name__ == "__main__":
    main()
