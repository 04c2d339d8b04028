"""The tutorial for authors of plugins says what is true: its code, roles, hooks and errors."""

import inspect
import re
from pathlib import Path

import pytest

import mscvt
import plugin_reference
from mscvt.plugins import blocks as names_of_blocks
from mscvt.plugins import hookspecs

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/plugin"
TUTORIAL = (ROOT / "docs/writing-a-plugin.md").read_text(encoding="utf-8")
BLOCKS = [name for name in vars(names_of_blocks) if name.isupper() and not name.startswith("_")]
HOOKS = [name for name in dir(hookspecs) if name.startswith("mscvt_")]


def section(title):
    return TUTORIAL.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_tutorial_shows_the_whole_example():
    shown = dict(re.findall(r"^\*\*`(.+?)`\*\*\n\n```\w+\n(.*?)^```$", TUTORIAL, re.DOTALL | re.MULTILINE))
    written = [path for path in EXAMPLE.rglob("*") if path.suffix in (".py", ".toml") and "build" not in path.parts]
    assert shown == {str(path.relative_to(EXAMPLE)): path.read_text(encoding="utf-8") for path in written}


def test_tables_of_the_tutorial_are_those_of_the_code():
    assert plugin_reference.render(TUTORIAL) == TUTORIAL, "make docs writes the tables anew"


def test_everything_that_the_tutorial_tells_to_import_is_public():
    public = set(mscvt.__all__)
    told = set(re.findall(r"`([A-Z][A-Z_]+[A-Z])`", section("Layers and blocks") + section("Rules")))
    assert len(told) > 10
    assert told <= public
    assert set(BLOCKS) <= public


@pytest.mark.parametrize("hook", HOOKS)
def test_tutorial_shows_the_signature_of_every_hook(hook):
    arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    assert f"\n| `{hook}({arguments})` |" in section("Hooks")


def test_errors_of_the_tutorial_are_those_of_the_program():
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "core/src").rglob("*.py"))
    quoted = re.findall(r"^\| `(.+?)` \|", section("Typical errors"), re.MULTILINE)
    assert len(quoted) > 10
    for message in quoted:
        first, _, rest = message.partition(" of ")
        assert first in source, message
        assert rest in source, message
