"""Recipes: the options for a published model and one parallel layout, as TOML in the folder `recipes` of a plugin.

    model = "Mine-7B"
    model-type = "mine"
    repositories = ["owner/Mine-7B"]

    [hf2mg]
    target-tensor-parallel-size = 8

    [mg2hf]

    [config]
    num_hidden_layers = 32

A table for each command holds options as the command line has them; `config` holds what the model's `config.json` says.
The name of a recipe is that of its file.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from mscvt.errors import Faults, MscvtError
from mscvt.errors.nearest import did_you_mean
from mscvt.model.hyperparameters import shown_value
from mscvt.plugins.registry import Registry
from mscvt.records import dataclass

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COMMANDS = ("hf2mg", "mg2hf", "mg2mg")
"""The tables of options that a recipe may have."""
_SUFFIX = ".toml"
_HEAD: Mapping[str, tuple[type, str]] = {
    "model": (str, "a string"),
    "model-type": (str, "a string"),
    "repositories": (list, "a list of strings"),
    **dict.fromkeys((*COMMANDS, "config"), (dict, "a table")),
}
"""Key of a recipe -> what it holds."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The options for one model and one layout."""

    name: str
    distribution: str
    """Of the plugin that has it."""
    model: str
    """The published model's name."""
    model_type: str
    repositories: tuple[str, ...]
    """Where it is published, as owner/name."""
    options: Mapping[str, Mapping[str, Any]]
    """Command -> option, as the command line spells it without dashes in front -> value."""
    config: Mapping[str, Any]
    """What `config.json` says of the model's sizes."""


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """Where a recipe is."""

    name: str
    distribution: str
    file: Path


def find_recipes(registry: Registry) -> Mapping[str, tuple[RecipeFile, ...]]:
    """The recipes of all plugins that can be used, unread: name -> those that have it, of which there should be one."""
    found: dict[str, list[RecipeFile]] = {}
    for plugin in registry.plugins:
        module = import_module(plugin.entry_point.partition(" = ")[2]) if not plugin.error else None
        for folder in getattr(module, "__path__", ()):
            for file in Path(folder).glob(f"recipes/*{_SUFFIX}"):
                found.setdefault(file.stem, []).append(RecipeFile(file.stem, plugin.distribution, file))
    return {name: tuple(places) for name, places in sorted(found.items())}


def load_recipe(name: str, registry: Registry) -> Recipe:
    """Read one recipe.

    Raises:
        MscvtError: Where there is none of that name, or more than one, or where it is wrong.
    """
    found = find_recipes(registry)
    if name not in found:
        question = did_you_mean(name, found)
        all_of_them = "`mscvt recipes` lists all."
        raise MscvtError(f"there is no recipe {name!r}", hint=f"{question} {all_of_them}" if question else all_of_them)
    if len(found[name]) > 1:
        where = ", ".join(place.distribution for place in found[name])
        raise MscvtError(f"more than one plugin has a recipe {name!r}: {where}", hint="Uninstall all but one of them.")
    return read_recipe(found[name][0])


def read_recipe(place: RecipeFile) -> Recipe:
    """Read a recipe's file.

    Raises:
        MscvtError: Where it is no recipe; all faults at once.
    """
    where = f"{place.distribution}: recipes/{place.name}{_SUFFIX}"
    table = parse_toml(place.file.read_bytes(), where)
    faults = Faults()
    for key, value in table.items():
        if key not in _HEAD:
            faults.add(f"{key}: recipes have no such key", hint=f"They have {', '.join(_HEAD)}.")
        elif not isinstance(value, _HEAD[key][0]):
            faults.add(f"{key}: expected {_HEAD[key][1]}")
    for key in ("model", "model-type"):
        if key not in table:
            faults.add(f"{key} is missing")
    faults.raise_if_any(f"{where} is no recipe")
    return Recipe(
        name=place.name,
        distribution=place.distribution,
        model=table["model"],
        model_type=table["model-type"],
        repositories=tuple(map(str, table.get("repositories", ()))),
        options={command: table[command] for command in COMMANDS if command in table},
        config=table.get("config", {}),
    )


def check_sizes(recipe: Recipe, config: Mapping[str, Any]) -> None:
    """Refuse a recipe for a model of another size, as far as a configuration says the same things.

    Raises:
        MscvtError: With everything that differs.
    """
    faults = Faults()
    for name, value in recipe.config.items():
        said = config.get(name)
        if said is not None and said != value:
            faults.add(
                f"{name} is {shown_value(said)}, in the recipe {shown_value(value)}",
                hint="`mscvt recipes` lists all; a recipe of the same type with other sizes may be there.",
            )
    faults.raise_if_any(f"config.json is not of {recipe.model}, which the recipe {recipe.name} is for")


def parse_toml(data: bytes, where: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        MscvtError: Where it is none.
    """
    try:
        table: dict[str, Any] = tomllib.loads(data.decode())
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are such
        raise MscvtError(
            f"{where}: can't be read as TOML: {error}", hint="https://toml.io says how it is written."
        ) from None
    return table
