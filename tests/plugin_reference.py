"""The tables of the reference for authors of plugins, from the code; run it to write the page's tables anew."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from mscvt import DECODER_FIELDS, ROLES
from mscvt.dialects import mindspeed
from mscvt.dialects.options import Options
from mscvt.model.options import with_defaults
from mscvt.testing import FamilyContract

PAGE = Path(__file__).parents[1] / "docs/writing-a-plugin.md"


def fields() -> str:
    """The rows of the core's fields."""
    return "".join(
        f"| `{name}` | {' or '.join(f'`{path}`' for path in entry.paths)} | {'yes' if entry.default is ... else ''} |\n"
        for name, entry in DECODER_FIELDS.items()
    )


def roles() -> str:
    """The rows of the core's roles, with the keys that they stand in."""
    rules = mindspeed.rules(with_defaults(Options()), {})
    keyed = [("", end.rule) for end in (*rules.first, *rules.last)]
    keyed += [("", rule) for table in rules.layer for rule in table]
    keyed += [(prefix, rule) for prefix, table in rules.mtp.items() for rule in table]
    keys: dict[str, str] = {}
    for prefix, rule in keyed:
        for role in rule.roles:
            keys.setdefault(role, prefix + rule.key)
    return "".join(f"| `{role}` | {what} | `{keys[role]}` |\n" for role, what in ROLES.items())


def attributes() -> str:
    """The rows of what a contract is told, from its docstring."""
    _, _, said = inspect.cleandoc(FamilyContract.__doc__ or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", said, re.MULTILINE)
    return "".join(f"| `{name}` | {' '.join(text.split())} |\n" for name, text in entries)


def render(text: str) -> str:
    """The page with its tables as the code has them."""
    tables = {"hyperparameter": fields(), "role": roles(), "attribute of the class": attributes()}
    for heading, body in tables.items():
        title = f"| {heading} |"
        pattern = re.compile(rf"(^{re.escape(title)}.*\n\|[-|]+\|\n)(?:\|.*\n)*", re.MULTILINE)
        text, count = pattern.subn(lambda match, rows=body: match[1] + rows, text)
        if count != 1:
            raise ValueError(f"{count} tables begin with {title!r}")
    return text


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
