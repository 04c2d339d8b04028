"""The rows of a command as options of typer, for its help and for completion."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from typer.main import get_command

from mscvt.cli.command_table import Command
from mscvt.model.options import Row

_SHORT = len("--from")
"""Aliases that are longer are taken too, and only the documentation has them."""


def typer_options(command: Command) -> list[Any]:
    """The options of a command, as typer makes them from the signature of a function."""

    def function(**_: Any) -> None: ...

    parameters = {
        row.name: inspect.Parameter(
            row.name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[bool if row.is_switch else str, _typer_option(command, row)],
            default=False if row.is_switch else None,
        )
        for row in command.rows.values()
    }
    function.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    function.__annotations__ = {name: each.annotation for name, each in parameters.items()}
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return get_command(app).params


def _typer_option(command: Command, row: Row) -> Any:
    otherwise = command.otherwise(row)
    text = row.help
    if row.is_required:
        text += " [required]"
    elif otherwise:
        text += f" Default: {otherwise}."
    return typer.Option(
        *(spelling for spelling in row.aliases if len(spelling) <= _SHORT),
        row.flag,
        help=text,
        metavar=row.metavar or None,
        rich_help_panel=row.panel,
        show_default=False,
        autocompletion=_completion(row),
    )


def _completion(row: Row) -> Callable[[str], list[str]] | None:
    """What completes the value of an option, where it is one of a few; the shell completes the rest as paths."""
    if row.name in _NAMES:
        return _NAMES[row.name]
    if row.choices:
        return lambda incomplete: [choice for choice in row.choices if choice.startswith(incomplete)]
    return None


def _model_types(incomplete: str) -> list[str]:
    from mscvt.dialects.registry import load_registry

    return [name for name in sorted(load_registry().families) if name.startswith(incomplete)]


def _recipes(incomplete: str) -> list[str]:
    from mscvt.dialects.registry import load_registry
    from mscvt.plugins.recipes import find_recipes

    return [name for name in find_recipes(load_registry()) if name.startswith(incomplete)]


_NAMES: Mapping[str, Callable[[str], list[str]]] = {"model_type_hf": _model_types, "recipe": _recipes}
"""Option -> what completes its value, where that is in plugins."""
