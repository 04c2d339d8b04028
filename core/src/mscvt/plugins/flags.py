"""Flags for a training script, as model types say them: names of what is recorded, or text with such names."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from itertools import groupby
from typing import Any

from mscvt.layout.rules import fields_in
from mscvt.model.family import Hyperparameters, Layer
from mscvt.model.options import flag
from mscvt.plugins.answers import is_words

PATTERNS = frozenset({"--moe-layer-freq", "--no-rope-freq", "--linear-attention-freq", "--window-attn-skip-freq"})
"""Options with an entry for each layer: `megatron/training/arguments.py` reads them as an expression in Python."""


def is_flags(value: Any) -> bool:
    """Whether a value is a list of flags, whose braces match, or a function that gives one."""
    try:
        return callable(value) or (is_words(value) and spoken_of(value) is not None)
    except ValueError:
        return False


def given_by(function: Callable[..., Any], h: Hyperparameters, layers: Sequence[Layer]) -> Any:
    """The flags that a function gives; one that takes sizes alone, as all did before 0.2, gets no layers."""
    return function(h) if len(signature(function).parameters) == 1 else function(h, layers)


def spoken_of(flags: Sequence[str]) -> frozenset[str]:
    """The names of what flags speak of."""
    return frozenset(name for said in flags for name in fields_in(_text(said)))


def filled(flags: Sequence[str], args: Mapping[str, Any]) -> list[str]:
    """Flags with the values of what they speak of, those alone of which a model has all; a table has one for each."""
    filled = []
    for said in flags:
        values = {name: args.get(name) for name in spoken_of([said])}
        if isinstance(table := values.get(said), Mapping):
            filled += [told(flag(name), value) for name, value in table.items()]
        elif not any(value is None or value is False for value in values.values()):
            option = _text(said).partition(" ")[0]
            words = {name: _value(option, value) for name, value in values.items()}
            filled.append(_text(said).format(**words).rstrip())
    return filled


def told(option: str, value: Any) -> str:
    """An option and its value as a command line has them; what is true is said by the option alone.

    >>> told("--moe-layer-freq", [0, 1, 1]), told("--compress-ratios", [0, 4]), told("--swiglu", True)
    ("--moe-layer-freq '([0]*1+[1]*2)'", '--compress-ratios 0 4', '--swiglu')
    """
    return f"{option} {_value(option, value)}".rstrip()


def _text(said: str) -> str:
    return said if said.startswith("--") else f"{flag(said)} {{{said}}}"


def _value(option: str, value: Any) -> str:
    if isinstance(value, (list, tuple)):
        if option not in PATTERNS:
            return " ".join(_value(option, item) for item in value)
        runs = ((item, len(list(run))) for item, run in groupby(value))
        value = f"({'+'.join(f'[{item:d}]*{count}' for item, count in runs)})"
    return "" if value is True else shlex.quote(str(value))
