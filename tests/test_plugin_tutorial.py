"""The tutorial for authors of plugins says what is true: its code, roles, hooks and errors."""

import inspect
import re
from pathlib import Path

import pytest

from mscvt.dialects import mindspeed
from mscvt.dialects.mindspeed.options import Options
from mscvt.model.options import with_defaults
from mscvt.plugins import hookspecs

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/plugin"
TUTORIAL = (ROOT / "docs/writing-a-plugin.md").read_text(encoding="utf-8")
HOOKS = [name for name in dir(hookspecs) if name.startswith("mscvt_")]


def section(title):
    return TUTORIAL.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_tutorial_shows_the_whole_example():
    shown = dict(re.findall(r"^\*\*`(.+?)`\*\*\n\n```\w+\n(.*?)^```$", TUTORIAL, re.DOTALL | re.MULTILINE))
    written = [path for path in EXAMPLE.rglob("*") if path.suffix in (".py", ".toml") and "build" not in path.parts]
    assert shown == {str(path.relative_to(EXAMPLE)): path.read_text(encoding="utf-8") for path in written}


def test_tutorial_lists_every_role_with_its_key():
    listed = set()
    for roles, key in re.findall(r"^\| (`.+`) \| `(.+)` \|$", section("Roles"), re.MULTILINE):
        listed |= {(role, key) for role in re.findall(r"`(.+?)`", roles)}
    rules = mindspeed.rules(with_defaults(Options()), is_tied=False)
    keys = [("", end.rule) for end in (*rules.first, *rules.last)]
    keys += [("", rule) for table in rules.layer for rule in table]
    keys += [(prefix, rule) for prefix, table in rules.mtp.items() for rule in table]
    assert listed == {(role, prefix + rule.key) for prefix, rule in keys for role in rule.roles}


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
