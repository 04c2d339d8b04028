"""The options that are about what plugins hold: recipes, and files like them, and what a new plugin is made from."""

from __future__ import annotations

from pathlib import Path

from mscvt.model.options import option
from mscvt.records import dataclass

_MODEL = "Checkpoints"


@dataclass(frozen=True, slots=True)
class Prepared:
    """Options that are written down somewhere; those of the command line win."""

    recipe: str | None = option(
        panel=_MODEL,
        metavar="NAME",
        help="Take the options of a published model and layout, one of those that `mscvt recipes` lists.",
        unset="none",
        holds="the source is that model",
    )
    config: Path | None = option(
        panel=_MODEL,
        metavar="FILE",
        help="Take options from a file in TOML, where they have the names that they have here; a table [hf2mg] holds "
        "those of one command. They win over a recipe's.",
        unset="none",
    )
    from_training_script: Path | None = option(
        panel=_MODEL,
        metavar="FILE",
        help="Take the parallel options of a shell script that starts training; it is read, not executed. They win "
        "over a recipe's and a file's, and the command line must not contradict them.",
        unset="none",
    )


@dataclass(frozen=True, slots=True)
class RecipeShown:
    """Which recipe is shown."""

    recipe: str | None = option(
        panel=_MODEL, metavar="[NAME]", help="Show this recipe as command lines.", unset="all are listed"
    )


@dataclass(frozen=True, slots=True)
class NewPlugin:
    """What a new plugin is made from."""

    name: str = option(
        panel=_MODEL,
        metavar="NAME",
        help="Name of the family and of its model type; the distribution is mscvt-NAME.",
        holds="small letters, digits, - and _",
    )
    from_dir: Path | None = option(
        panel=_MODEL,
        metavar="DIR",
        help="Checkpoint of the family, whose config.json and headers are read.",
        unset="a plain decoder",
        aliases=("--from",),
    )
    to_dir: Path | None = option(
        panel=_MODEL,
        metavar="DIR",
        help="Folder to create.",
        unset="mscvt-NAME",
        holds="it does not exist or is empty",
        aliases=("--to",),
    )
