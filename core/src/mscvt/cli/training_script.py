"""The parallel options of a script that starts training, read from its text."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from mscvt.cli.command_table import Command
from mscvt.cli.prepared_options import Take
from mscvt.cli.shell_calls import Call, Script
from mscvt.cli.shell_text import ADDED, MOST, read_script
from mscvt.dialects.options import Options
from mscvt.errors import Faults, MscvtError
from mscvt.model.options import Row, rows

FLAG = "--from-training-script"
_OF_THE_MODEL = frozenset({"num_layers", "first_k_dense_replace"})
"""Options that mean something else there: the script gives the model's own, with noop layers."""
_SHOWN = 5


def take_script(command: Command, path: Path, given: Collection[str], take: Take, faults: Faults) -> list[str]:
    """Take the options of a script that say how a checkpoint is cut.

    Args:
        command: The command.
        path: The script.
        given: Options of the command line, which hold where the script's value is not known.
        take: Takes a value.
        faults: Where a value is added that is not known.

    Returns:
        What should be known.

    Raises:
        MscvtError: Where the script can't be read, or has no such option.
    """
    script = _read(path)
    table = rows(Options)
    spelt = {
        spelling: row for spelling, row in command.spelt.items() if row.name in table and row.name not in _OF_THE_MODEL
    }
    unseen: dict[str, None] = {}
    calls = [call for call in script.calls if any(word.partition("=")[0] in spelt for word in call.words)]
    for call in calls:
        unseen |= dict.fromkeys(_unseen(script, call, spelt))
        for name, words in _options(call):
            row = spelt.get(name)
            if row is None:
                continue
            texts = [] if row.is_switch else words[:1]
            unknown = [what for text in texts for what in script.unknown_in(text)]
            if not unknown:
                take(row, f"{path}: {name}", texts)
            elif row.name not in given:
                faults.add(
                    f"{path}, line {call.line}: {name} takes {unknown[0]}",
                    hint=f"Give it here: {row.flag} {row.metavar}. The script is read, not executed.",
                )
    if not calls:
        hidden = dict.fromkeys(what for call in script.calls for what in _unseen(script, call, spelt))
        rest = f" Nor is known: {'; '.join(list(hidden)[:_SHOWN])}." if hidden else ""
        raise MscvtError(
            f"{FLAG} {path}: no command in it has a parallel option such as --tensor-model-parallel-size",
            hint=f"Give the script in which they stand; what it calls or sources is not read.{rest}",
        )
    return [f"{path}: options are not seen in {what}" for what in unseen]


def differing_flags(path: Path, flags: Sequence[str]) -> list[str]:
    """Which options of a script have another value than the checkpoint needs, a sentence each.

    Args:
        path: The script.
        flags: What the training script must be told, word by word.
    """
    script = _read(path)
    theirs = {name: texts for call in script.calls for name, texts in _options(call)}
    found = []
    for name, needed in _options(Call(0, tuple(flags))):
        texts = theirs.get(name, needed)
        if not any(map(script.unknown_in, texts)) and not _is_same(texts, needed):
            found.append(f"{path}: {name} {shlex.join(texts)} is not what the checkpoint needs: {shlex.join(needed)}")
    return found


def _is_same(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    try:
        return [*map(float, ours)] == [*map(float, theirs)]
    except ValueError:
        return list(ours) == list(theirs)


def _options(call: Call) -> Iterator[tuple[str, list[str]]]:
    """Each option of a call, with the words up to the next one."""
    name, texts = "", list[str]()
    for word in (*call.words, "--"):
        if not word.startswith("--"):
            texts.append(word)
            continue
        if name:
            yield name, texts
        name, equals, attached = word.partition("=")
        texts = [attached] if equals else []


def _unseen(script: Script, call: Call, spelt: Mapping[str, Row]) -> Iterator[str]:
    """What may hold options: unknown words that are no option's value."""
    for before, word in pairwise(call.words):
        if script.is_unknown(word):
            (what,) = script.unknown_in(word)
            takes_none = before in spelt and spelt[before].is_switch
            if what.startswith(ADDED) or takes_none or "=" in before or not before.startswith("--"):
                yield what


def _read(path: Path) -> Script:
    if not path.is_file():
        raise MscvtError(f"{FLAG} {path}: no such file", hint="It is the shell script that starts training.")
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return read_script(file.read(MOST + 1))
    except MscvtError as error:
        raise MscvtError(f"{FLAG} {path}: {error.message}", hint=error.hint) from None
