"""The forms in which an adapter holds the factors of a weight, each as views: A `[rank, in]` and B `[out, rank]`."""

from __future__ import annotations

from typing import NamedTuple

from mscvt.tensors.views import View


class Held(NamedTuple):
    """A tensor of an adapter."""

    name: str
    shape: tuple[int, ...]


def plain(a: Held, b: Held) -> tuple[View, View]:
    """The factors of a linear layer, as they are."""
    return View(a.name, a.shape, (a.shape[1], 1)), View(b.name, b.shape, (b.shape[1], 1))


def embedding(a: Held, b: Held) -> tuple[View, View]:
    """Those of an embedding, A `[rank, words]` and B `[hidden, rank]`: a row of the weight is a word."""
    (rank, words), hidden = a.shape, b.shape[0]
    return View(b.name, (b.shape[1], hidden), (1, b.shape[1])), View(a.name, (words, rank), (1, words))


def expert(a: Held, b: Held, number: int, rank: int, rows: tuple[int, int]) -> tuple[View, View]:
    """Those of one of the experts that one parameter holds, A `[experts * rank, in]` and B `[out, rank * experts]`.

    Args:
        a: A.
        b: B.
        number: Which expert.
        rank: The rank of one expert's factors.
        rows: The first of the parameter's rows that the weight has, and how many.
    """
    inputs, width = a.shape[1], b.shape[1]
    first, count = rows
    return (
        View(a.name, (rank, inputs), (inputs, 1), number * rank * inputs),
        View(b.name, (count, rank), (width, width // rank), first * width + number),
    )


def exchanged_expert(a: Held, b: Held, number: int, rank: int, rows: tuple[int, int]) -> tuple[View, View]:
    """The same where A's columns are the outputs and B's rows the inputs, as earlier versions of PEFT had them."""
    outputs, width = a.shape[1], b.shape[1]
    first, count = rows
    return (
        View(b.name, (rank, b.shape[0]), (width // rank, width), number),
        View(a.name, (count, rank), (1, outputs), number * rank * outputs + first),
    )
