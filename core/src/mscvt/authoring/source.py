"""A draft as the text of a Python module, in the style of the formatter that plugins are checked with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mscvt.authoring.draft import Draft
from mscvt.errors import printable
from mscvt.layout.rules import Rule
from mscvt.model.fields import COUNT, Field
from mscvt.plugins import blocks as exported

_WIDTH = 120
_BLOCKS: Mapping[str, Mapping[str, str]] = {
    name: value for name, value in vars(exported).items() if name.isupper() and not name.startswith("_")
}
_SUMS = sorted(set(_BLOCKS) - {"ROLES", "DECODER"}, key=lambda name: (-len(_BLOCKS[name]), name))
"""The exported blocks that a block can be a sum of, the largest first."""


def module_text(draft: Draft, unplaced: Sequence[str]) -> str:
    """The module of a plugin below its docstring.

    Args:
        draft: What it says.
        unplaced: What nobody knows yet; it stands in comments.
    """
    used: set[str] = {"ModelType", "hookimpl"}
    tables = _tables(draft, used)
    hooks = [_model_types(draft)]
    if draft.dense:
        hooks.append(_layers(draft, used))
    if draft.rules:
        used |= {"Rule", "whole"}
        lines = [f"        {_rule(rule)},\n" for rule in draft.rules]
        hooks.append(
            "@hookimpl\ndef mscvt_split_rules() -> Sequence[Rule]:\n"
            '    """The norms are as long as all heads, and whole on every rank."""\n'
            f"    return [\n{''.join(lines)}    ]\n"
        )
    comments = "".join(f"#   {printable(line)}\n" for line in unplaced)
    if comments:
        comments = f"\n# Not placed yet:\n{comments}"
    if draft.unread:
        said = "".join(f"#   {printable(f'{name}: {literal(value)}'):.110}\n" for name, value in draft.unread.items())
        comments += f"\n# Of config.json, nothing reads these; what changes tensors or training wants a field:\n{said}"
    return (
        f"from collections.abc import Sequence\n\n{_import(used)}\n\nMSCVT_API = 2\n{comments}"
        f"{tables}\n\n" + "\n\n".join(hooks)
    )


def assignment(name: str, value: Mapping[str, Any]) -> str:
    """An assignment of a table, an entry each line."""
    entries = "".join(f"    {literal(key)}: {literal(item)},\n" for key, item in value.items())
    return f"{name} = {{\n{entries}}}\n"


def literal(value: Any) -> str:
    """A plain value as Python writes it, with double quotes."""
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(literal, value)) + "]"
    return repr(value)


def _import(used: Iterable[str]) -> str:
    names = sorted(used, key=lambda name: (not name.isupper(), name.islower(), name))
    line = f"from mscvt import {', '.join(names)}"
    if len(line) <= _WIDTH:
        return line
    return "from mscvt import (\n" + "".join(f"    {name},\n" for name in names) + ")"


def _tables(draft: Draft, used: set[str]) -> str:
    if draft.blocks == exported.DECODER:
        used.add("DECODER")
        text = ""
    else:
        entries = []
        for block, names in draft.blocks.items():
            left, terms = dict(names), []
            for name in _SUMS:
                if _BLOCKS[name].items() <= left.items():
                    terms.append(name)
                    used.add(name)
                    left = {role: value for role, value in left.items() if role not in _BLOCKS[name]}
            if left:
                own = "".join(f"        {literal(role)}: {literal(name)},\n" for role, name in left.items())
                terms.append("{\n" + own + "    }")
            entries.append(f"    {literal(block)}: {' | '.join(terms)},\n")
        text = f"\nNAMES = {{\n{''.join(entries)}}}\n"
    if draft.fields:
        used |= {entry.kind for entry in draft.fields.values()}
        lines = [f"    {literal(name)}: {_field(entry)},\n" for name, entry in draft.fields.items()]
        text += f"{'' if text else chr(10)}FIELDS = {{\n{''.join(lines)}}}\n"
    if draft.dense:
        text += f"DENSE_LAYERS = {literal(draft.dense)}\n"
    return text


def _field(entry: Field) -> str:
    given = [literal(path) for path in entry.paths]
    if entry.default is not ...:
        given.append(f"default={'()' if entry.default == () else literal(entry.default)}")
    if entry.kind == COUNT and entry.least != 1:
        given.append(f"least={entry.least}")
    return f"{entry.kind}({', '.join(given)})"


def _rule(rule: Rule) -> str:
    (source,) = rule.sources
    return f"whole({literal(rule.key)}, {literal(source.role)}, {literal(rule.axes)})"


def _model_types(draft: Draft) -> str:
    fields = ", fields=FIELDS" if draft.fields else ""
    names = "DECODER" if draft.blocks == exported.DECODER else "NAMES"
    served = f"ModelType({literal(draft.name)}, ({literal(draft.config_type)},){fields}, names={names})"
    return (
        "@hookimpl\ndef mscvt_model_types() -> Sequence[ModelType]:\n"
        f'    """Serve `{draft.name}`."""\n    return [{served}]\n'
    )


def _layers(draft: Draft, used: set[str]) -> str:
    """The hook for layers of which no field says what they are; in all other models they are as the core has them."""
    used |= {"DENSE", "Hyperparameters", "Layer", "MOE"}
    says, body = "Some layers are dense, the others have experts", '    size = hyperparameters["num_layers"]\n'
    layers = "[Layer(i, DENSE if i in DENSE_LAYERS else MOE) for i in range(size)]"
    if draft.mtp:
        says += "; MTP layers follow"
        layers += ' + [\n        Layer(size + m, MOE, mtp=m) for m in range(hyperparameters["mtp_num_layers"])\n    ]'
    return (
        "@hookimpl\ndef mscvt_layers(hyperparameters: Hyperparameters) -> Sequence[Layer]:\n"
        f'    """{says}."""\n{body}    return {layers}\n'
    )
