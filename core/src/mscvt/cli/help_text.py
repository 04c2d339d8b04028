"""How the program and its commands look to typer: help in sections, words read by rows, errors of one style."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

from mscvt.cli.command_table import BY_NAME
from mscvt.cli.words import UsageError
from mscvt.errors.nearest import did_you_mean

_ALL = "`mscvt --help` shows all commands."


class SectionedCommand(TyperCommand):
    """A command whose help shows each option under its `rich_help_panel`, in the order of the parameters."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Leave the words to the command, which reads them by its rows; typer reads them for help and completion."""
        if ctx.resilient_parsing:
            return _parse(super(), ctx, args)
        if set(args) & set(ctx.help_option_names):
            return _parse(super(), ctx, ["--help"])
        ctx.args = args
        return args

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete an option, or the first value that may be given without one."""
        found: list[Any] = super().shell_complete(ctx, incomplete)
        unnamed = [] if ctx.args or incomplete.startswith("-") else BY_NAME[str(self.name)].positional[:1]
        for parameter in self.get_params(ctx):
            if parameter.name in unnamed:
                found += parameter.shell_complete(ctx, incomplete)
        return found

    def get_params(self, ctx: Any) -> Any:
        """The options, made when first asked for: those of all commands take longer than most of what is run."""
        if not self.params:
            from mscvt.cli.typer_options import typer_options

            self.params = typer_options(BY_NAME[str(self.name)])
        return super().get_params(ctx)

    def get_help_option_names(self, ctx: Any) -> list[str]:
        """`--help` before `-h`; typer's own order changes from run to run."""
        return sorted(super().get_help_option_names(ctx))

    def get_help_option(self, ctx: Any) -> Any:
        """The help option, with a default: to do without one, typer 0.29 imports pydantic, which takes 0.1 s."""
        return _with_default(super().get_help_option(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                title = getattr(parameter, "rich_help_panel", None) or "Running"
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


class PlainGroup(TyperGroup):
    """The program itself, whose help lists its commands in the order in which they are written."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what stands before the command; `help COMMAND` is `COMMAND --help`.

        Raises:
            UsageError: Where that is no option of the program.
        """
        if args[:1] == ["help"]:
            args = [*args[1:2], "--help"]
        first = args[0].partition("=")[0] if args else ""
        known = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        if first.startswith("-") and first not in known and not ctx.resilient_parsing:
            raise UsageError(f"mscvt: no option {first} before the command", hint=_hint(first, known))
        return _parse(super(), ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command.

        Raises:
            UsageError: Where there is none of that name.
        """
        if args[0] not in BY_NAME and not ctx.resilient_parsing:
            raise UsageError(f"mscvt: no command {args[0]!r}", hint=_hint(args[0], BY_NAME))
        return super().resolve_command(ctx, args)

    def get_params(self, ctx: Any) -> Any:
        """The options, each with a default, as the help of the commands."""
        return [_with_default(parameter) for parameter in super().get_params(ctx)]

    def get_help_option_names(self, ctx: Any) -> list[str]:
        """`--help` before `-h`."""
        return sorted(super().get_help_option_names(ctx))

    def get_help_option(self, ctx: Any) -> Any:
        """The help option, with a default, as that of the commands."""
        return _with_default(super().get_help_option(ctx))


def _hint(word: str, known: Any) -> str:
    question = did_you_mean(word, known)
    return f"{question} {_ALL}" if question else _ALL


def _parse(parent: Any, ctx: Any, args: list[str]) -> list[str]:
    rest: list[str] = parent.parse_args(ctx, args)
    return rest


def _with_default(option: Any) -> Any:
    if option is not None and option.default is None:
        option.default = False
    return option
