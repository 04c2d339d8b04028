"""The program: typer's commands, made from the table of commands, and its entry points."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

import typer

from mscvt.cli.command_table import COMMANDS, Command
from mscvt.cli.help_text import PlainGroup, SectionedCommand
from mscvt.cli.report import INTERRUPTED, MISUSED, reported, show_error
from mscvt.cli.tables import Output
from mscvt.cli.words import UsageError, read_words

_YOUNG = 100_000
"""New objects between two looks for garbage; a plan is a million that are none, and a tenth of its time was looking."""
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
        context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 120},
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
        given = read_words(command, ctx.args)
        output = given.read(Output)
        with reported(as_json=output.json, debug=output.debug):
            if given.error:
                raise given.error
            from mscvt.cli.commands import RUNS

            RUNS[command.name](given)

    return run


app = make_app()


def run() -> None:
    """The program: `main`, and then an end at once, where torch would take 0.2 to 0.4 s to be unloaded."""
    gc.set_threshold(_YOUNG)
    try:
        main()
    except SystemExit as end:
        atexit._run_exitfuncs()
        with suppress(OSError):  # where nobody reads any more, the interpreter says so at its own end
            sys.stdout.flush()
            sys.stderr.flush()
            if isinstance(end.code, int):
                os._exit(end.code)
        raise


def main() -> None:
    """Run the command line and exit: 0 where all went well, 1 on an error, 2 on wrong usage, 130 on Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a path may hold what the terminal can't show
    try:
        app(prog_name="mscvt")
    except UsageError as error:  # of what stands before the command; the command shows its own errors
        show_error(error)
        sys.exit(MISUSED)
    except KeyboardInterrupt:
        typer.echo("\ninterrupted", err=True)
        sys.exit(INTERRUPTED)
