"""The tables of docs/options.md, written from the rows of the options; `make docs` runs this."""

from __future__ import annotations

import re
from pathlib import Path

from mscvt.cli.command_table import BY_NAME, COMMANDS
from mscvt.cli.original import ORIGINAL
from mscvt.model.options import Row

PAGE = Path(__file__).parents[1] / "docs" / "options.md"
_TABLE = re.compile(r"(?s)(<!-- (.+?): written by `make docs` -->\n).*?(<!-- end -->)")


def cell(text: str) -> str:
    return text.replace("|", "\\|") or "-"


def all_rows() -> dict[str, Row]:
    """Every option of every command, in the order of the help of `convert`, which has most of them."""
    rows: dict[str, Row] = {}
    for command in (BY_NAME["convert"], *COMMANDS):
        rows = {**rows, **{name: row for name, row in command.rows.items() if name not in rows}}
    return rows


def commands_with(name: str) -> str:
    have = [command.name for command in COMMANDS if name in command.rows]
    lack = [command.name for command in COMMANDS if name not in command.rows]
    return "all" if not lack else "all but plugins" if lack == ["plugins"] else ", ".join(have)


def spellings(row: Row) -> str:
    """An option as it is written, with its value or the choices of it, and its other names."""
    choices = row.metavar.split("|")
    written = f"`{row.flag} {row.metavar}`" if row.metavar and len(choices) == 1 else f"`{row.flag}`"
    if len(choices) > 1:
        written += " " + " / ".join(f"`{choice}`" for choice in choices)
    return written + "".join(f", `{alias}`" for alias in row.aliases)


def command_table() -> str:
    lines = ["| command | what it does |", "|---|---|"]
    lines += [f"| [`{command.name}`](commands/{command.name}.md) | {command.summary} |" for command in COMMANDS]
    return "\n".join(lines) + "\n"


def option_table(panel: str) -> str:
    lines = ["| option | commands | meaning | default | what must hold |", "|---|---|---|---|---|"]
    for row in all_rows().values():
        if row.panel == panel:
            default = row.otherwise or ("off" if row.is_switch else "")
            cells = [spellings(row), commands_with(row.name), *map(cell, (row.help, default, row.holds))]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def original_table() -> str:
    lines = ["| option | values | why | taken |", "|---|---|---|---|"]
    for name, foreign in ORIGINAL.items():
        values = ", ".join(f"`{value}`" for value in foreign.values) or ("none" if foreign.most == 0 else "any")
        lines.append(f"| `{name}` | {values} | {foreign.why} | {'refused' if foreign.is_refused else 'with a note'} |")
    return "\n".join(lines) + "\n"


def render(text: str) -> str:
    """The page, with its tables written anew."""

    others = {"Commands": command_table, "Original": original_table}

    def table(match: re.Match[str]) -> str:
        made = others[match[2]]() if match[2] in others else option_table(match[2])
        return f"{match[1]}\n{made}\n{match[3]}"

    return _TABLE.sub(table, text)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
