"""The program as typer knows it: the help of each command of the table, and completion of words.

What typer calls when it is asked to run a command is what runs without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from mscvt.cli.command_table import COMMANDS, Command
from mscvt.cli.dispatch import HELP, run_command
from mscvt.cli.help_text import PlainGroup, SectionedCommand

_EXAMPLES = """\b
Examples:
  mscvt hf2mg --load-dir model-hf --save-dir model-mg \\
      --target-tensor-parallel-size 2
  mscvt mg2hf --load-dir model-mg --save-dir model-back --hf-cfg-dir model-hf
  mscvt verify --hf model-hf --mg model-mg

`mscvt COMMAND --help` shows the options of a command."""


def make_app() -> typer.Typer:
    """Typer's program with every command of the table."""
    app = typer.Typer(
        name="mscvt",
        cls=PlainGroup,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": list(HELP), "max_content_width": 120},
        help="Convert model weights between Hugging Face and Megatron-Core, exactly.",
        epilog=_EXAMPLES,
    )
    app.callback(invoke_without_command=True)(_top)
    for command in COMMANDS:
        example = command.example.replace("\n", "\n  ")
        app.command(
            command.name,
            cls=SectionedCommand,
            help=f"{command.summary}\n\n{command.text}",
            epilog=f"\b\nExample:\n  {example}",
            options_metavar=command.usage,
        )(_run_of(command))
    return app


def _top(
    version: Annotated[bool, typer.Option("--version", "-V", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        from mscvt import __version__

        typer.echo(f"mscvt {__version__}")
        raise typer.Exit


def _run_of(command: Command) -> Callable[[typer.Context], None]:
    """What typer calls, with the words that `SectionedCommand` left alone."""

    def run(ctx: typer.Context) -> None:
        run_command(command, ctx.args)

    return run


app = make_app()
