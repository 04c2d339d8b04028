"""Help as plain text, in sections: no terminal is so narrow that an option's name would be cut short."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class SectionedCommand(TyperCommand):
    """A command whose help shows each option under its `rich_help_panel`, in the order of the parameters."""

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

    def get_help_option_names(self, ctx: Any) -> list[str]:
        """`--help` before `-h`."""
        return sorted(super().get_help_option_names(ctx))

    def get_help_option(self, ctx: Any) -> Any:
        """The help option, with a default, as that of the commands."""
        return _with_default(super().get_help_option(ctx))


def _with_default(option: Any) -> Any:
    if option is not None:
        option.default = False
    return option
