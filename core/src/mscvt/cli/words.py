"""The words of a command line, read by the rows of a command: its values, and everything that is wrong, at once."""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from mscvt.cli.command_table import COMMANDS, Command
from mscvt.cli.original import ORIGINAL, check_direction, take_original
from mscvt.dialects.options import Options
from mscvt.errors import Faults, MscvtError
from mscvt.errors.nearest import did_you_mean
from mscvt.model.options import Row, check_values, flag, rows, with_defaults
from mscvt.model.values import KINDS, shown
from mscvt.records import dataclass

T = TypeVar("T")


class UsageError(MscvtError):
    """A command line that can't be understood; the program ends with exit code 2."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a command line gives; a value that it doesn't give is not there."""

    command: Command
    values: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    """What was given and means nothing, with the reason."""
    removed: frozenset[str] = frozenset()
    """Options that are taken away."""
    error: UsageError | None = None
    """What is wrong with the command line."""
    words: tuple[str, ...] = ()
    """The command line itself."""

    def asked(self, table: type[T]) -> T:
        """The options of a table as they were asked for, None where nothing was."""
        names = {entry.name for entry in fields(table)}  # type: ignore[arg-type]  # a table is a dataclass
        return table(**{name: value for name, value in self.values.items() if name in names})

    def read(self, table: type[T]) -> T:
        """The options of a table, with the defaults of what was not asked for."""
        return with_defaults(self.asked(table))


def read_words(command: Command, words: Sequence[str]) -> Given:
    """Read a command line.

    Args:
        command: The command.
        words: What follows its name.
    """
    if words and words[0] in command.ways:
        command = command.ways[words[0]]
    faults, notes = Faults(), list[str]()
    spelt = command.spelt
    values: dict[str, Any] = {}
    removed: set[str] = set()
    strays: list[tuple[str, Row | None]] = []
    refused: list[str] = []
    row: Row | None = None
    unnamed = deque(command.rows[name] for name in command.positional)
    left = deque(words)
    while left:
        word = left.popleft()
        if not word.startswith("--") or word == "--":
            if unnamed:
                positional = unnamed.popleft()
                _read_value(positional, positional.flag, [word], values, faults)
            else:
                strays.append((word, row))
            continue
        name, equals, attached = word.partition("=")
        row = spelt.get(name)
        away = spelt.get(f"--{name[5:]}") if command.takes_away and name.startswith("--no-") else None
        if row is None and away is not None and away.is_switch and away.recorded:
            removed.add(away.name)
        elif row is not None:
            texts = take_texts(left, attached if equals else None, row.kind.words[1])
            if command.takes_away and texts == ["none"] and row.name in rows(Options):
                removed.add(row.name)
                continue
            _read_value(row, name, texts, values, faults)
        elif command.takes_original and name in ORIGINAL:
            texts = take_texts(left, attached if equals else None, ORIGINAL[name].most)
            take_original(name, texts, notes, refused, faults)
        else:
            take_texts(left, attached if equals else None, 1)  # what follows is its value, and no fault of its own
            _add_unknown(command, name, list(spelt), faults)
    values = {**_prepared(command, values, removed, notes, faults), **values}
    _add_refused(refused, faults)
    _add_strays(strays, values, faults)
    missing = [row for row in command.rows.values() if row.is_required and row.name not in values]
    if missing:
        written = (row.metavar if row.name in command.positional else f"{row.flag} {row.metavar}" for row in missing)
        faults.add(f"missing: {', '.join(written)}")
    for name in sorted(removed & values.keys()):
        faults.add(f"{spelt[flag(name)].flag} is given and taken away", hint="Leave out one of them.")
    given = Given(command, values, tuple(notes), frozenset(removed), words=tuple(words))
    for table in command.tables:
        check_values(given.asked(table), faults)
    if command.takes_original:
        check_direction(values, faults)
    return replace(given, error=_usage_error(command, faults))


def _prepared(
    command: Command, values: Mapping[str, Any], removed: set[str], notes: list[str], faults: Faults
) -> Mapping[str, Any]:
    """What a recipe, a file or a script says of options that the command line neither gives nor takes away."""
    names = ("recipe", "config", "from_training_script")
    recipe, path, script = (values.get(name) if command.recipes else None for name in names)
    if not (recipe or path or script):
        return {}
    from mscvt.cli.prepared_options import take_file, take_recipe
    from mscvt.cli.training_script import take_script

    of_recipe, of_file, of_script = dict[str, Any](), dict[str, Any](), dict[str, Any]()

    def into(found: dict[str, Any]) -> Callable[[Row, str, list[str]], None]:
        return lambda row, name, texts: _read_value(row, name, texts, found, faults)

    try:
        if recipe:
            take_recipe(command, recipe, into(of_recipe), faults)
        if path:
            take_file(command, path, into(of_file), faults)
        if script:
            notes += take_script(command, script, values.keys() | removed, into(of_script), faults)
    except MscvtError as error:
        faults.add("; ".join([error.message, *error.faults]), hint=error.hint)
    for name in of_script.keys() & values.keys():
        if of_script[name] != values[name]:
            faults.add(
                f"{flag(name)} {shown(values[name])} is given, and {script} has {shown(of_script[name])}",
                hint="Leave the option out, or change the script.",
            )
    return {name: value for name, value in (of_recipe | of_file | of_script).items() if name not in removed}


def take_texts(left: deque[str], attached: str | None, most: int | None) -> list[str]:
    """The words that belong to an option, taken from those that are left; one that begins with `--` never does.

    Args:
        left: The words that follow; those that belong to the option are removed.
        attached: What followed the option's `=`, or None.
        most: How many words may belong to it; None where there is no limit.
    """
    if attached is not None:
        return [attached]
    taken: list[str] = []
    while left and not left[0].startswith("--") and (most is None or len(taken) < most):
        taken.append(left.popleft())
    return taken


def _read_value(row: Row, name: str, texts: list[str], values: dict[str, Any], faults: Faults) -> None:
    """Put the value of an option among the values."""
    least, most = row.kind.words
    value: Any
    if row.is_switch:
        if texts:
            faults.add(f"{name}={shlex.quote(texts[0])}: takes no value", hint=f"{name} alone switches it on.")
            return
        value = True
    elif len(list(filter(None, texts))) < least:
        faults.add(f"{name}: needs a value", hint=f"{name} {row.metavar} is how it is written.")
        return
    else:
        try:
            parsed = [row.kind.parse(text) for text in texts]
        except ValueError:
            said = " ".join(map(shlex.quote, texts))
            faults.add(f"{name} {said}: expected {row.kind.name}, such as {name} {row.kind.example}")
            return
        value = parsed[0] if most == 1 else tuple(parsed)
    if values.setdefault(row.name, value) != value:
        faults.add(
            f"{row.flag} is given twice, as {shown(values[row.name])} and as {shown(value)}",
            hint="Leave out one of them.",
        )


def _add_unknown(command: Command, name: str, spelt: list[str], faults: Faults) -> None:
    others = [
        other.name for other in COMMANDS if any(name in row.flags for row in other.rows.values()) and other != command
    ]
    if others:
        faults.add(f"{name}: is no option of {command.name}", hint=f"{name} is one of {', '.join(others)}.")
    elif name in ORIGINAL:
        faults.add(f"{name}: is no option of {command.name}", hint=f"Leave it out: {ORIGINAL[name].why}.")
    else:
        known = [*spelt, *ORIGINAL] if command.takes_original else spelt
        faults.add(f"{name}: no such option", hint=did_you_mean(name, known))


def _add_refused(refused: list[str], faults: Faults) -> None:
    if refused:
        faults.add(f"{', '.join(refused)}: {ORIGINAL[refused[0]].why}", hint=ORIGINAL[refused[0]].instead)


def _add_strays(strays: list[tuple[str, Row | None]], values: Mapping[str, Any], faults: Faults) -> None:
    """Add a fault for the words that belong to no option."""
    if not strays:
        return
    lists = {before.name: before for _, before in strays if before and before.kind is KINDS[tuple[int, ...]]}
    for name, row in lists.items():
        rest = [shlex.quote(word) for word, before in strays if before is row]
        if name in values:
            listed = ",".join([shown(values[name]), *rest])
            faults.add(
                f"{row.flag} {shown(values[name])} {' '.join(rest)}: lists have commas and no blanks",
                hint=f"Write {row.flag} {listed}.",
            )
    words = [shlex.quote(word) for word, before in strays if before is None or before.name not in lists]
    if not words:
        return
    if len(words) == 2 and not {"load_dir", "save_dir"} & values.keys():
        hint = f"Folders follow their options: --load-dir {words[0]} --save-dir {words[1]}."
    else:
        hint = "Every value follows the option that it belongs to."
    faults.add(f"{' '.join(words)}: {'belongs' if len(words) == 1 else 'belong'} to no option", hint=hint)


def _usage_error(command: Command, faults: Faults) -> UsageError | None:
    """All faults as one error; where there are several, each is followed by what to do about it."""
    found, where = faults.found, f"mscvt {command.name}"
    help_hint = f"`{where} --help` shows all options."
    if not found:
        return None
    if len(found) == 1:
        (fault, hint), *_ = found
        return UsageError(f"{where}: {fault}", hint=f"{hint} {help_hint}" if hint else help_hint)
    lines = [f"{fault}. {hint}" if hint else fault for fault, hint in found]
    return UsageError(f"{where}: {len(lines)} faults", hint=help_hint, faults=lines)
