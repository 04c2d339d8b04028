"""The scripts in examples/, made from the recipes: one for the first recipe of each plugin and each direction.

python tests/example_scripts.py        # writes them
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from mscvt.cli.recipe_commands import option_lines
from mscvt.plugins.recipes import Recipe, find_recipes, read_recipe
from mscvt.plugins.registry import load_registry

FOLDER = Path(__file__).resolve().parents[1] / "examples"
_WAYS = {"hf2mg": ("from Hugging Face to Megatron", ""), "mg2hf": ("back to Hugging Face", " --hf-cfg-dir ORIGINAL")}


def recipes() -> list[Recipe]:
    """Every recipe, by name."""
    return [read_recipe(place) for places in find_recipes(load_registry()).values() for place in places]


def scripts() -> Iterator[tuple[Path, str]]:
    """Every script's path and text."""
    firsts: dict[str, Recipe] = {}
    for recipe in recipes():
        firsts.setdefault(recipe.distribution, recipe)
    for recipe in firsts.values():
        for command in _WAYS:
            yield FOLDER / f"{recipe.name}-{command}.sh", script(recipe, command)


def script(recipe: Recipe, command: str) -> str:
    """A script's text."""
    way, more = _WAYS[command]
    lines = [f'mscvt {command} --load-dir "$load" --save-dir "$save"', *map(shlex.join, option_lines(recipe, command))]
    return "\n".join(
        [
            "#!/bin/sh",
            f"# {recipe.model} {way}, as the recipe {recipe.name} has it.",
            f"# Further options follow the folders: {recipe.name}-{command}.sh LOAD_DIR SAVE_DIR{more}",
            "set -eu",
            "load=$1 save=$2",
            "shift 2",
            " \\\n    ".join([*lines, '"$@"']),
            "",
        ]
    )


if __name__ == "__main__":
    for path, text in scripts():
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
