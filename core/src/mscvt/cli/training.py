"""What is handed over to the training script, one option a line, ready to be pasted."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mscvt.cli.plugin_tables import Prepared
from mscvt.cli.screen import say
from mscvt.cli.words import Given
from mscvt.errors import MscvtError

if TYPE_CHECKING:
    from mscvt.jobs.conversion import Conversion

_YOURS = "data, tokenizer, batch, sequence length, precision, optimizer, losses and --spec are its own"


def training_flags(conversion: Conversion, target: Path | None) -> list[str]:
    """What the training script must be told, word by word; empty towards Hugging Face."""
    if not conversion.training_flags:
        return []
    return [*([conversion.load_flag, str(target)] if target else []), *shlex.split(conversion.training_flags)]


def script_notes(given: Given, conversion: Conversion) -> list[str]:
    """What the training script that options were taken from says otherwise than the result needs it."""
    path = given.read(Prepared).from_training_script
    if path is None:
        return []
    from mscvt.cli.training_script import differing_flags

    return differing_flags(path, shlex.split(conversion.training_flags))


def print_training_flags(words: Sequence[str]) -> None:
    """Show what to pass to the training script, if there is anything."""
    if not words:
        return
    say(f"pass to the training script ({_YOURS}):")
    say(" \\\n".join(f"    {line}" for line in _lines(words)))


def print_training_meanings(words: Sequence[str]) -> None:
    """Show the same, and what each option is for.

    Raises:
        MscvtError: Where training is told nothing, because the result is not for it.
    """
    from mscvt.cli.training_meanings import FAMILYS, MEANINGS

    if not words:
        raise MscvtError(
            "--training-args: nothing is told to a training script on the way to Hugging Face",
            hint="It goes with `mscvt plan hf2mg` and `mscvt plan mg2mg`.",
        )
    print_training_flags(words)
    say("\nwhat they are for:")
    names = [word for word in words if word.startswith("--")]
    width = max(map(len, names))
    for name in names:
        say(f"    {name:<{width}}  {MEANINGS.get(name, FAMILYS)}")


def _lines(words: Iterable[str]) -> Iterator[str]:
    """Each option with its values; a negative number is a value."""
    line: list[str] = []
    for word in words:
        if word.startswith("--") and line:
            yield shlex.join(line)
            line = []
        line.append(word)
    yield shlex.join(line)
