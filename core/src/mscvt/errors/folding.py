"""Many lines that differ only in numbers, as few lines: `model.layers.{0-7}.mlp.experts.{0-3}.up (32)`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product
from math import prod

_NUMBER = re.compile(r"(?<![A-Za-z0-9])[0-9]{1,18}(?![A-Za-z0-9])")
"""A number that stands alone: that of `layers.3.` and of `mp_rank_00_001`, not that of `fc1`."""
_LEAST = 3
"""So many lines are worth folding; two are as easy to read as they are."""


def fold(lines: Iterable[str]) -> list[str]:
    """The lines, with those that differ only in numbers put together, in the order in which they first appear.

    Braces hold exactly the numbers that occur: a line with two pairs stands for every combination, but numbers that
    are the same in each line (`layers.3: no layers.3.up`) go together. How many lines it stands for follows in
    parentheses.
    """
    return [f"{text} ({count})" if count > 1 else text for text, count in fold_counted(lines, _LEAST)]


def fold_counted(lines: Iterable[str], least: int) -> list[tuple[str, int]]:
    """The same, each with how many lines it stands for; fewer than `least` that belong together stay as they are."""
    groups: dict[str, list[tuple[str, ...]]] = {}
    for line in lines:
        template = _NUMBER.sub("{}", line.replace("{", "{{").replace("}", "}}"))
        groups.setdefault(template, []).append(tuple(_NUMBER.findall(line)))
    folded = []
    for template, found in groups.items():
        columns = list(dict.fromkeys(zip(*found, strict=True)))
        places = [columns.index(column) for column in zip(*found, strict=True)]
        for sets in _products(list(dict.fromkeys(zip(*columns, strict=True))) if columns else [()]):
            count = prod(map(len, sets))
            if count >= least:
                texts = list(map(_braced, sets))
                folded.append((template.format(*(texts[place] for place in places)), count))
            else:
                folded += [(template.format(*(numbers[place] for place in places)), 1) for numbers in product(*sets)]
    return folded


def _products(found: list[tuple[str, ...]]) -> list[tuple[tuple[str, ...], ...]]:
    """Tuples of numbers as products of sets: those that differ in one place are united, beginning with the last one."""
    products: list[tuple[tuple[str, ...], ...]] = [tuple((number,) for number in numbers) for numbers in found]
    for place in reversed(range(len(found[0]))):
        united: dict[tuple[tuple[str, ...], ...], list[str]] = {}
        for sets in products:
            rest = (*sets[:place], (), *sets[place + 1 :])
            united.setdefault(rest, []).extend(sets[place])
        products = [
            (*rest[:place], tuple(sorted(numbers, key=_order)), *rest[place + 1 :]) for rest, numbers in united.items()
        ]
    return products


def _order(number: str) -> tuple[int, str]:
    return int(number), number


def _braced(numbers: tuple[str, ...]) -> str:
    """Runs of consecutive numbers, as written, in braces; a single number as it is."""
    if len(numbers) == 1:
        return numbers[0]
    runs: list[list[str]] = []
    for number in numbers:
        before = runs[-1][-1] if runs else None
        if before is not None and int(number) == int(before) + 1 and _is_next(before, number):
            runs[-1].append(number)
        else:
            runs.append([number])
    return "{" + ",".join(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs) + "}"


def _is_next(before: str, number: str) -> bool:
    """Whether counting on from one gives the other as it is written: 009 and 010, 9 and 10, but not 09 and 10."""
    return str(int(before) + 1).zfill(len(before)) == number
