"""Options that come from a recipe or a file in TOML; those of the command line win over both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mscvt.cli.command_table import Command
from mscvt.dialects.registry import load_registry
from mscvt.errors import Faults, MscvtError
from mscvt.errors.nearest import did_you_mean
from mscvt.model.options import Row, flag
from mscvt.model.values import shown
from mscvt.plugins.recipes import COMMANDS, Recipe, load_recipe, parse_toml

_MOST_BYTES = 1 << 20
"""No file of options is longer."""
Take = Callable[[Row, str, list[str]], None]
"""Takes the value of an option: its row, what it is called in an error, and its words."""


def take_recipe(command: Command, name: str, take: Take, faults: Faults) -> None:
    """Take the options of a recipe.

    Raises:
        MscvtError: Where there is no such recipe, or it can't be read.
    """
    recipe = load_recipe(name, load_registry())
    where = f"recipe {name}"
    _take_table(command, where, {"model-type-hf": recipe.model_type}, take, faults)
    _take_table(command, where, options_of(recipe, command), take, faults)


def options_of(recipe: Recipe, command: Command) -> Mapping[str, Any]:
    """The options of a recipe for a command; another layout is that of a new checkpoint where nothing else is said."""
    own = recipe.options.get(command.recipes)
    if own is not None or command.recipes != "mg2mg":
        return own or {}
    return {key: value for key, value in recipe.options.get("hf2mg", {}).items() if flag(key) in command.spelt}


def take_file(command: Command, path: Path, take: Take, faults: Faults) -> None:
    """Take the options of a file: those outside of tables, and those of the command's own table.

    Raises:
        MscvtError: Where it can't be read.
    """
    if not path.is_file():
        raise MscvtError(f"--config {path}: no such file", hint="It is a file in TOML, with options and their values.")
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise MscvtError(f"--config {path}: is longer than {_MOST_BYTES} bytes", hint="It holds options alone.")
    table = parse_toml(data, f"--config {path}")
    everywhere = {key: value for key, value in table.items() if key not in COMMANDS}
    own = table.get(command.recipes, {})
    for key in COMMANDS:
        if not isinstance(table.get(key, {}), dict):
            faults.add(f"{path}: {key}: expected a table")
            own = {}
    _take_table(command, str(path), {**everywhere, **own}, take, faults)


def _take_table(command: Command, where: str, table: Mapping[str, Any], take: Take, faults: Faults) -> None:
    for key, value in table.items():
        row = command.spelt.get(flag(key))
        if row is None:
            hint = did_you_mean(key, (spelling.strip("-") for spelling in command.spelt))
            faults.add(f"{where}: {key}: is no option of {command.name}", hint=hint)
            continue
        texts = list(_texts(value))
        if value is False and row.is_switch:
            continue
        if not texts and value is not True:
            faults.add(f"{where}: {key}: expected {row.kind.name}, such as {key} = {row.kind.example}")
            continue
        take(row, f"{where}: {key}", [",".join(texts)] if row.kind.words[1] == 1 else texts)


def _texts(value: Any) -> Iterator[str]:
    """A value as the words of a command line; none where it can't be one."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, (int, float, str)) and not isinstance(each, bool):
            yield shown(each)
