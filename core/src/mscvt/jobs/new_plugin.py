"""Writing the distribution of a new plugin: a plain decoder, or what could be recognised in a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template

from mscvt.authoring.draft import Draft, draft_from, drafted_family, plain_draft, with_head_size
from mscvt.authoring.source import assignment, module_text
from mscvt.errors import MscvtError
from mscvt.formats.huggingface.config import CONFIG, read_config
from mscvt.formats.huggingface.reader import HuggingFaceSource
from mscvt.jobs.real_classes import RealNames, real_classes, takes_heads, usual_configuration
from mscvt.jobs.whole_model import whole_model
from mscvt.plugins.registry import Registry
from mscvt.records import dataclass
from mscvt.tensors.info import TensorInfo
from mscvt.views.names import NameRow, name_table

_NAME = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")
_PREFIX = "mscvt-"
_FILES: Mapping[str, str] = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "module.py": "src/{module}/__init__.py",
    "test.py": "tests/test_{word}.py",
    "test.yml": ".github/workflows/test.yml",
}
"""Template -> path in the distribution."""


@dataclass(frozen=True, slots=True)
class NewPlugin:
    """What was written."""

    target: Path
    paths: tuple[str, ...]
    """Its files, inside of the target."""
    unplaced: tuple[str, ...]
    """What could not be recognised, or doesn't fit; it stands in the module as comments too."""
    notes: tuple[str, ...]


def write_plugin(name: str, registry: Registry, source: Path | None = None, target: Path | None = None) -> NewPlugin:
    """Write a distribution that installs, is found and has tests.

    Args:
        name: Of the family and of its model type; small letters, digits, `-` and `_`.
        registry: The plugins that are there.
        source: A checkpoint of the family, whose headers and `config.json` are read; None for a plain decoder.
        target: The folder to create; `mscvt-NAME` in the current folder by default.

    Raises:
        MscvtError: Where the name can't be one, the target is there already, or the source can't be read.
    """
    _check_name(name)
    folder = target or Path(f"{_PREFIX}{name}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MscvtError(f"{folder}: is there already", hint="Give another folder with --to; nothing is overwritten.")
    draft, unplaced, real = plain_draft(name), list[str](), None
    notes = []
    if source is not None:
        config, tensors = read_config(source), HuggingFaceSource(source).tensors
        real = real_classes(config)
        draft = draft_from(name, config, tensors, usual_configuration(real))
        if real is None:
            notes.append("transformers has no class for this model that the tests could compare names and logits with")
        elif (larger := with_head_size(draft)) is not None and takes_heads(real, larger.config):
            draft = larger
        unplaced = [*draft.notes, *_differences(draft, source, tensors)]
        if draft.unread:
            notes.append(
                f"config.json says {', '.join(draft.unread)}, which nothing reads: what changes tensors, what is "
                "computed or how it is trained wants a field, and may be why a test of the logits fails"
            )
    if name in registry.families or name in registry.contested:
        of = registry.contested.get(name) or [registry.families[name].plugin.distribution]
        notes.append(f"{', '.join(of)} serves the model type {name!r} already; uninstall it, or choose another name")
    served = [other for other in registry.families.values() if draft.config_type in other.model_type.config_model_types]
    for other in sorted({family.plugin.distribution for family in served}):
        notes.append(f"{other} serves model_type {draft.config_type!r} too; uninstall it to try the new one")
    texts = _texts(draft, unplaced, real)
    for path, text in texts.items():
        try:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise MscvtError(
                f"{folder / path}: can't be written: {error.strerror}", hint="Give another folder with --to."
            ) from None
    return NewPlugin(folder, tuple(texts), tuple(unplaced), tuple(notes))


def _check_name(name: str) -> None:
    if name.startswith((_PREFIX, "mscvt_")):
        raise MscvtError(
            f"{name}: would give the distribution {_PREFIX}{name}", hint=f"Give the family alone: {name[6:]}"
        )
    if not _NAME.fullmatch(name):
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        raise MscvtError(
            f"{name}: can't be the name of a distribution and of a module",
            hint="Use small letters, digits, - and _" + (f", such as {plain}." if plain else "."),
        )


def _differences(draft: Draft, source: Path, tensors: Mapping[str, TensorInfo]) -> list[str]:
    """Where the drafted family is not what the checkpoint holds."""
    family = drafted_family(draft)
    try:
        table = name_table(tensors, whole_model(family, source).description, family.model_type.ignored)
    except MscvtError as error:
        reason = ("; ".join(error.faults) or error.message).replace(str(source / CONFIG), CONFIG)
        reason = reason.replace(f"plugin {family.plugin.called}, ", "")
        known = {name for names in draft.blocks.values() for name in names.values()}
        every = name_table(tensors, None).rows
        unknown = [_said(row) for row in every if _pattern(row.names) not in known]
        return [f"the model can't be described: {reason:.300}", *unknown]
    wrong = [
        f"{_said(row)}: taken as {row.part.role}, which would be {list(row.part.shape)}"
        for row in table.rows
        if row.part is not None and row.part.shape and row.part.shape != row.shape
    ]
    missing = [f"{_said(row)}: expected, and not in the checkpoint" for row in table.missing]
    return [*map(_said, table.left_over), *wrong, *missing]


def _said(row: NameRow) -> str:
    return f"{row.names} {list(row.shape)} x{row.count}"


def _pattern(folded: str) -> str:
    """A folded name as a plugin writes it: its first number is the layer's, its second the expert's."""
    numbers = iter(("{layer}", "{expert}"))
    return re.sub(r"(?<=\.)(?:\{[\d,-]+\}|\d+)(?=\.)", lambda match: next(numbers, match[0]), folded)


def _texts(draft: Draft, unplaced: list[str], real: RealNames | None) -> dict[str, str]:
    """Path -> text of each file."""
    word = draft.name.replace("-", "_")
    imports = "from mscvt.testing import FamilyContract"
    if real is not None:
        imports = f"from transformers import {', '.join(sorted(real))}\n\n{imports}"
    values = {
        "name": draft.name,
        "word": word,
        "module": f"mscvt_{word}",
        "class_name": "".join(part.capitalize() for part in word.split("_")),
        "body": module_text(draft, unplaced).rstrip(),
        "imports": imports,
        "config": assignment("CONFIG", draft.config),
        "real": f"    real = {real[0]}, {real[1]}" if real is not None else "",
    }
    folder = resources.files("mscvt") / "templates" / "plugin"
    texts = {}
    for template, path in _FILES.items():
        text = Template((folder / f"{template}.template").read_text(encoding="utf-8")).substitute(values)
        texts[path.format(**values)] = text.rstrip() + "\n"
    return texts
