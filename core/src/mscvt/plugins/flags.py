"""Flags for a training script, as model types say them: names of what is recorded, or text with such names."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from mscvt.layout.rules import fields_in
from mscvt.model.options import flag
from mscvt.plugins.answers import is_words


def is_flags(value: Any) -> bool:
    """Whether a value is a list of flags, whose braces match."""
    try:
        return is_words(value) and spoken_of(value) is not None
    except ValueError:
        return False


def spoken_of(flags: Sequence[str]) -> frozenset[str]:
    """The names of what flags speak of."""
    return frozenset(name for said in flags for name in fields_in(_text(said)))


def filled(flags: Sequence[str], args: Mapping[str, Any]) -> list[str]:
    """Flags with the values of what they speak of, those alone of which a model has all; a table has one for each."""
    filled = []
    for said in flags:
        values = {name: args.get(name) for name in spoken_of([said])}
        if isinstance(table := values.get(said), Mapping):
            filled += [f"{flag(name)} {_written(value)}" for name, value in table.items()]
        elif not any(value is None or value is False for value in values.values()):
            filled.append(_text(said).format(**{name: _written(value) for name, value in values.items()}).rstrip())
    return filled


def _text(said: str) -> str:
    return said if said.startswith("--") else f"{flag(said)} {{{said}}}"


def _written(value: Any) -> str:
    """A value as a command line has it; what is true is said by its flag alone."""
    if isinstance(value, (list, tuple)):
        return " ".join(map(_written, value))
    return "" if value is True else shlex.quote(str(value))
