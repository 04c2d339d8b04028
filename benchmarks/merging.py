"""How fast a core merges factors of LoRA into a weight, beside a core that copies the weight; in processor time."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch

from mscvt.tensors.adapted import AdaptedMatrix
from mscvt.tensors.sources import PlainTensor


def gigabytes_per_second(nbytes: int, work: Callable[[], object], rounds: int) -> float:
    """Bytes of the weight by the processor time of the fastest round."""
    best = float("inf")
    for _ in range(rounds):
        began = time.thread_time()
        work()
        best = min(best, time.thread_time() - began)
    return nbytes / best / 1e9


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a row for each rank."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--columns", type=int, default=4096)
    parser.add_argument("--ranks", type=int, nargs="*", default=[4, 16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows, columns = asked.rows, asked.columns
    weight = PlainTensor(torch.randn(rows * columns).bfloat16())
    target = torch.empty(rows, columns, dtype=torch.bfloat16)
    box, nbytes = (0, (rows, columns), (columns, 1)), 2 * rows * columns
    speed = gigabytes_per_second(nbytes, lambda: target.copy_(weight.region(*box)), asked.rounds)
    print("| what | GB/s of a core |\n|---|---|")
    print(f"| copy | {speed:.2f} |")
    for rank in asked.ranks:
        left, right = (torch.randn(size * rank).bfloat16() for size in (rows, columns))
        merged = AdaptedMatrix(weight, left, right, rank, columns, 2.0)
        speed = gigabytes_per_second(nbytes, lambda merged=merged: target.copy_(merged.region(*box)), asked.rounds)
        print(f"| merge, rank {rank} | {speed:.2f} |")


if __name__ == "__main__":
    main()
