"""What the command `recipes` does, and what a conversion asks of a recipe."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mscvt.cli.command_table import BY_NAME
from mscvt.cli.plugin_tables import RecipeShown
from mscvt.cli.prepared_options import options_of
from mscvt.cli.results import print_json, print_notes
from mscvt.cli.screen import say
from mscvt.cli.tables import Output
from mscvt.cli.words import Given
from mscvt.dialects.options import Options
from mscvt.dialects.registry import load_registry
from mscvt.errors import MscvtError, printable
from mscvt.model.options import flag, rows
from mscvt.plugins.recipes import COMMANDS, Recipe, check_sizes, find_recipes, load_recipe, read_recipe


def check_recipe(name: str, load_dir: Path) -> None:
    """See that a Hugging Face folder holds the model that a recipe is for.

    Raises:
        MscvtError: Where it is another one.
    """
    from mscvt.formats.huggingface.config import read_config

    check_sizes(load_recipe(name, load_registry()), read_config(load_dir))


def print_recipes(given: Given) -> None:
    """List all recipes, or show one."""
    asked, registry = given.read(RecipeShown), load_registry()
    found: list[Recipe] = []
    wrong: list[MscvtError] = []
    if asked.recipe:
        found = [load_recipe(asked.recipe, registry)]
    else:
        for place in (place for places in find_recipes(registry).values() for place in places):
            try:
                found.append(read_recipe(place))
            except MscvtError as error:
                wrong.append(error)
    if given.read(Output).json:
        print_json(given.command.name, {"recipes": [*map(recipe_object, found)], "notes": [*map(str, wrong)]})
        return
    for line in _shown(found[0]) if asked.recipe else _listed(found):
        say(printable(line))
    print_notes(map(str, wrong))


def recipe_object(recipe: Recipe) -> dict[str, Any]:
    """A recipe, as `--json` shows it."""
    return {
        "name": recipe.name,
        "distribution": recipe.distribution,
        "model": recipe.model,
        "model_type": recipe.model_type,
        "repositories": list(recipe.repositories),
        "options": {command: words_of(recipe, command) for command in COMMANDS},
        "config": dict(recipe.config),
    }


def words_of(recipe: Recipe, command: str) -> list[str]:
    """The options of a recipe for a command, word by word."""
    return [word for words in option_lines(recipe, command) for word in words]


def option_lines(recipe: Recipe, command: str) -> Iterator[list[str]]:
    """The options of a recipe for a command, each with its values."""
    yield ["--model-type-hf", recipe.model_type]
    for key, value in options_of(recipe, BY_NAME[command]).items():
        spelling = flag(key)
        if value is True:
            yield [spelling]
        elif isinstance(value, list):
            texts = list(map(str, value))
            is_one_word = BY_NAME[command].spelt[spelling].kind.words[1] == 1
            yield [spelling, *([",".join(texts)] if is_one_word else texts)]
        elif value is not False:
            yield [spelling, str(value)]


def _listed(recipes: list[Recipe]) -> Iterator[str]:
    if not recipes:
        yield "no plugin has a recipe"
        return
    rows = [(recipe.name, recipe.model, " ".join(_layout(recipe)) or "one rank") for recipe in recipes]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, model, layout in rows:
        yield f"{name:{widths[0]}}  {model:{widths[1]}}  {layout}"
    yield "`mscvt recipes NAME` shows one; mscvt hf2mg --recipe NAME takes it"


def _layout(recipe: Recipe) -> Iterator[str]:
    """The parallel sizes of a recipe other than 1, in short."""
    short = {row.flag: row.aliases[0] for row in rows(Options).values() if row.aliases}
    for spelling, *values in option_lines(recipe, "hf2mg"):
        if spelling in short and values != ["1"]:
            yield f"{short[spelling].strip('-')} {values[0]}"


def _shown(recipe: Recipe) -> Iterator[str]:
    yield f"{recipe.name}: {recipe.model}, of {recipe.distribution}"
    if recipe.repositories:
        yield f"published as {', '.join(recipe.repositories)}"
    for command in COMMANDS:
        options = [f"    {shlex.join(words)}" for words in option_lines(recipe, command)]
        lines = [f"mscvt {command} --load-dir DIR --save-dir DIR", *options]
        yield from (f"{line} \\" for line in lines[:-1])
        yield lines[-1]
