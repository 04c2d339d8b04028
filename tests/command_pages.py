"""A page for each command in docs/commands, and their list in mkdocs.yml; `make docs` runs this."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from mscvt.cli.command_table import COMMANDS, Command
from options_page import cell, spellings

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "commands"
NAVIGATION = ROOT / "mkdocs.yml"
_LISTED = re.compile(r"(?s)( *# Commands: written by `make docs`\n).*?( *# end\n)")
_STARTS = ("getting-started.md", "concepts.md", "plan-and-inspect.md", "megatron-lm.md")
_CONVERSION = (*_STARTS, "lora.md", "resume.md", "troubleshooting.md")
RELATED: Mapping[str, tuple[str, ...]] = {
    "hf2mg": (*_CONVERSION, "support.md", "formats.md"),
    "mg2hf": (*_CONVERSION, "formats.md"),
    "mg2mg": (*_STARTS, "changing-the-layout.md", "resume.md", "troubleshooting.md"),
    "plan": ("plan-and-inspect.md", "concepts.md"),
    "convert": ("migrating.md", "options.md#options-of-the-original", "troubleshooting.md"),
    "verify": ("resume.md#proof", "troubleshooting.md#verifying"),
    "download": ("download-and-check.md", "troubleshooting.md#downloading-and-checking"),
    "check": ("download-and-check.md#is-it-whole", "troubleshooting.md#downloading-and-checking"),
    "status": ("resume.md",),
    "discard": ("resume.md",),
    "inspect": ("plan-and-inspect.md#what-is-in-a-folder", "formats.md"),
    "recipes": ("recipes.md",),
    "names": ("writing-a-plugin.md#looking-at-a-checkpoint",),
    "new-plugin": ("writing-a-plugin.md",),
    "plugins": ("support.md", "writing-a-plugin.md"),
}
"""Command -> the pages that tell more; one that is not here has the page of what `--json` prints alone."""


def heading_of(link: str) -> str:
    """The title of the page, or the heading of the section, that a link inside of docs leads to."""
    page, _, anchor = link.partition("#")
    headings = re.findall(r"(?m)^#+ (.+)$", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    return next(text for text in headings if not anchor or anchor_of(text) == anchor)


def anchor_of(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-")


def json_link(name: str) -> str:
    """Where the page of what `--json` prints tells of a command."""
    headings = re.findall(r"(?m)^## (.+)$", (ROOT / "docs" / "json.md").read_text(encoding="utf-8"))
    return "json.md#" + anchor_of(next(text for text in headings if f"`{name}`" in text))


def option_tables(command: Command) -> str:
    """The options of a command, a table for each section of its help."""
    tables: dict[str, list[str]] = {}
    for row in command.rows.values():
        default = command.otherwise(row) or ("off" if row.is_switch else "")
        cells = [spellings(row), *map(cell, (row.help, default, row.holds))]
        tables.setdefault(row.panel, []).append("| " + " | ".join(cells) + " |")
    head = "| option | meaning | default | what must hold |\n|---|---|---|---|\n"
    return "".join(f"\n## {title}\n\n{head}" + "\n".join(lines) + "\n" for title, lines in tables.items())


def render(command: Command) -> str:
    """The page of a command."""
    example = re.sub(r"(?m)^", "    ", command.example)
    text = f"{command.text}\n\n" if command.text else ""
    links = [*RELATED.get(command.name, ()), json_link(command.name)]
    related = "".join(f"- [{heading_of(link)}](../{link})\n" for link in links)
    return (
        f"# mscvt {command.name}\n\n{command.summary}\n\n{text}Usage: `mscvt {command.name} {command.usage}`\n\n"
        f"For example:\n\n{example}\n{option_tables(command)}\n## More\n\n{related}"
        "\nThis page is written by `make docs` from the same table as the command's `--help`.\n"
    )


def render_navigation(text: str) -> str:
    """The navigation of the site, with the commands listed anew."""
    names = "".join(f"      - commands/{command.name}.md\n" for command in COMMANDS)
    return _LISTED.sub(lambda match: match[1] + names + match[2], text)


def pages() -> dict[Path, str]:
    """What should be there: every page, and the file of the navigation."""
    made = {FOLDER / f"{command.name}.md": render(command) for command in COMMANDS}
    return {**made, NAVIGATION: render_navigation(NAVIGATION.read_text(encoding="utf-8"))}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for stale in set(FOLDER.glob("*.md")) - set(pages()):
        stale.unlink()
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
