"""The table of a checkpoint's names: one row for all that differ only in numbers, and what they are to a model.

model.layers.{0-93}.self_attn.q_proj.weight  [8192, 4096]  BF16  x94  attention.q  self_attention.linear_qkv.weight
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from mscvt.description.description import Description
from mscvt.errors.folding import fold_counted
from mscvt.plan.by_huggingface import uses_by_name
from mscvt.records import dataclass
from mscvt.tensors.info import TensorInfo
from mscvt.views.ranks import cut_text

_FOLDED = 2
"""So many names are worth folding."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a tensor is to a model."""

    role: str
    key: str
    """What it is on the other side. Of a Hugging Face tensor the key in the training stack after the layer's prefix,
    several where it is taken apart; of a training stack's the names in Hugging Face, folded."""
    cut: str
    """Which axes each parallel dimension cuts, `ep: expert, etp: moe_ffn`; empty where every rank holds all of it."""
    shape: tuple[int, ...]
    """The shape that the model expects."""


@dataclass(frozen=True, slots=True)
class NameRow:
    """All tensors that differ only in numbers."""

    names: str
    """Folded: `model.layers.{0-2,5}.mlp.up_proj.weight`."""
    count: int
    shape: tuple[int, ...]
    """As the checkpoint has it; as the model needs it where the checkpoint lacks them."""
    dtype: str | None
    """safetensors' name; None where the checkpoint lacks them."""
    part: Part | None


@dataclass(frozen=True, slots=True)
class NameTable:
    """Every tensor of a checkpoint, and, under a model type, what it lacks."""

    rows: tuple[NameRow, ...]
    """Under a model type those that it takes, otherwise all."""
    left_over: tuple[NameRow, ...] = ()
    """What no rule takes."""
    missing: tuple[NameRow, ...] = ()
    """What the model type needs and the checkpoint lacks."""


def name_table(
    tensors: Mapping[str, TensorInfo], description: Description | None, ignored: Sequence[str] = ()
) -> NameTable:
    """Fold the names of a checkpoint.

    Args:
        tensors: Every tensor of the checkpoint.
        description: The whole model, or None where nobody knows what model it is.
        ignored: Patterns of tensors that hold no weights.
    """
    if description is None:
        return NameTable(_rows((name, info, None) for name, info in tensors.items()))
    parts = _parts(description)
    wanted = parts.keys() - {name for name, alias in description.aliases.items() if not alias.is_written}
    for pattern in ignored:
        empty = Part("", "holds no weights", "", ())
        parts |= {name: empty for name in tensors if name not in parts and fnmatchcase(name, pattern)}
    return NameTable(
        _rows((name, info, parts[name]) for name, info in tensors.items() if name in parts),
        _rows((name, info, None) for name, info in tensors.items() if name not in parts),
        _rows((name, None, parts[name]) for name in parts if name in wanted and name not in tensors),
    )


def _parts(description: Description) -> dict[str, Part]:
    """What every Hugging Face tensor of a model is; layers that share a layout share the answer."""
    parts: dict[str, Part] = {}
    shared: dict[tuple[object, ...], Part] = {}
    for name, uses in uses_by_name(description).items():
        mark = tuple((use.parameter.layout, use.number) for use in uses)
        if mark not in shared:
            keys = dict.fromkeys(use.parameter.layout.left[0].name for use in uses)
            cuts = dict.fromkeys(cut_text(use.parameter.layout.cuts) for use in uses)
            shared[mark] = Part(uses[0].side.name, joined(keys), ", ".join(filter(None, cuts)), uses[0].side.shape)
        parts[name] = shared[mark]
    for name, alias in description.aliases.items():
        original = parts[alias.of]
        parts[name] = Part(original.role, f"repeats {alias.of}", "", original.shape)
    return parts


def _rows(found: Iterable[tuple[str, TensorInfo | None, Part | None]]) -> tuple[NameRow, ...]:
    """Fold what is alike in everything but the numbers in its name, in the order of the first of each."""
    alike: dict[tuple[tuple[int, ...], str | None, Part | None], list[str]] = {}
    for name, info, part in found:
        shape = info.shape if info is not None else part.shape if part is not None else ()
        alike.setdefault((shape, info.dtype if info is not None else None, part), []).append(name)
    return tuple(
        NameRow(names, count, shape, dtype, part)
        for (shape, dtype, part), group in alike.items()
        for names, count in fold_counted(group, _FOLDED)
    )


def joined(names: Iterable[str]) -> str:
    """What belongs together as one text: `attention.{q,k}` where names differ in one word, else `a.b + c`."""
    words = [name.split(".") for name in dict.fromkeys(names)]
    if len({len(each) for each in words}) == 1:
        columns = [list(dict.fromkeys(column)) for column in zip(*words, strict=True)]
        differing = [column for column in columns if len(column) > 1]
        if len(differing) == 1 and len(differing[0]) == len(words):
            return ".".join(c[0] if len(c) == 1 else "{" + ",".join(c) + "}" for c in columns)
    return " + ".join(map(".".join, words))


def lines_of(table: NameTable) -> list[str]:
    """The table as text, in columns that are as wide as they have to be."""
    sections = [("", table.rows), ("left over", table.left_over), ("missing", table.missing)]
    cells = {title: [_cells(row) for row in rows] for title, rows in sections}
    every = [line for section in cells.values() for line in section]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)] if every else []
    lines: list[str] = []
    for title, section in cells.items():
        if title and section:
            lines += ["", f"{title}:"]
        for line in section:
            padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True) if width)
            lines.append("  ".join(padded).rstrip())
    return lines


def _cells(row: NameRow) -> tuple[str, ...]:
    part = row.part
    expected = ""
    if part is not None and part.shape and part.shape != row.shape:
        expected = f"expected {list(part.shape)}"
    about = ("", "", "") if part is None else (part.role, part.key, part.cut)
    return (row.names, str(list(row.shape)), row.dtype or "", f"x{row.count}", *about, expected)
