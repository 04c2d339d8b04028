"""The support table, docs/support.md, from the plugins and from the tests; run it to write the file anew."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

from hypothesis import Phase, given, settings

from golden_cases import CASES as GOLDEN
from golden_cases import load_case
from mscvt.dialects.options import Options
from mscvt.model.options import FEATURES, rows
from mscvt.plugins.family import Family
from mscvt.plugins.registry import load_registry
from mscvt.testing import FamilyContract
from mscvt.testing.sources import features_of
from random_models import MODEL_TYPES, Case, cases

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "support.md"
Used = set[tuple[str, str]]
"""Model type and name of an option that was given, and not as its default."""

DRAWS = 80
"""For each model type."""

INTRODUCTION = """# What is supported

Written by `make docs` from the installed plugins and from the tests; `tests/test_documentation.py` fails where this
page is out of date.

## Model types

| `--model-type-hf` | plugin | `model_type` in `config.json` | besides a plain decoder |
|---|---|---|---|
"""
LEGEND = """
Without `--model-type-hf` the type is what `config.json` says, or on the way back what the checkpoint's `args` record.

## Model types and options

- **G**: a golden case has the option: every tensor of every rank, and of the way back, is known beforehand and compared
  byte for byte (`tests/golden/`, run by `tests/test_golden.py`).
- **M**: the real megatron-core loads the result and computes the logits of transformers
  (`tests/test_megatron_core.py`).
- **R**: the plugin's own suite converts there and back under the option, and every byte is the same
  (`plugins/*/tests`).
- **P**: a property test may draw the option for this model type, among all others that go with it, and compares every
  byte with an independent converter (`tests/test_properties.py`: some dozens of draws for each model type, the same
  ones every time; more with `MSCVT_EXAMPLES`).
- **yes**: accepted, and no test has it for this model type.
- **-**: the model has no such part, or is not trained so; the option is refused by name.

"""
CLOSING = """
Options that don't depend on the model type (`--dtype`, `--dequantize`, `--only`, ...) are not listed here;
[options.md](options.md) describes all of them and what can't be combined.
"""


def families() -> dict[str, Family]:
    """The families of this repository, not what else may be installed."""
    ours = {f"mscvt-{path.parent.name.replace('_', '-')}" for path in ROOT.glob("plugins/*/pyproject.toml")}
    registry = load_registry()
    return {name: family for name, family in registry.families.items() if family.plugin.distribution in ours}


def in_words(words: Iterable[str]) -> set[str]:
    """The options that a command line gives, other than as their defaults."""
    given = list(words)
    found = set()
    for row in rows(Options).values():
        if row.flag in given:
            value = given[given.index(row.flag) + 1 :][:1]
            if value != [str(row.default)]:
                found.add(row.name)
    return found


def in_options(options: Options) -> set[str]:
    """The same for options that were read already."""
    return {row.name for row in rows(Options).values() if getattr(options, row.name) not in (None, row.default)}


def used_by_golden_cases() -> Used:
    """What the golden cases have."""
    cases = [load_case(path) for path in sorted(GOLDEN.glob("*.json"))]
    return {(case["model_type_hf"], name) for case in cases for name in in_words(case["hf2mg"])}


def used_with_megatron_core() -> Used:
    """What the comparisons with megatron-core have."""
    module = load_module(Path(__file__).with_name("test_megatron_core.py"))
    return {
        (module.FAMILIES[case.family].model_type_hf, name)
        for case in module.CASES.values()
        for name in in_words(word for option in case.options for word in option.split("="))
    }


def suites() -> list[type[FamilyContract]]:
    """The contracts of all plugins' suites."""
    found = [
        suite
        for path in sorted(ROOT.glob("plugins/*/tests/test_*.py"))
        for suite in vars(load_module(path)).values()
        if inspect.isclass(suite) and issubclass(suite, FamilyContract) and suite is not FamilyContract
    ]
    return list(dict.fromkeys(found))


def used_by_plugins() -> Used:
    """What the contract that a plugin's suite inherits has."""
    return {
        (suite.model_type, name)
        for suite in suites()
        for options in suite.variants().values()
        for name in in_options(options)
    }


def features_by_type(known: Mapping[str, Family]) -> dict[str, set[str]]:
    """What the models of a type may consist of, as their suites have them."""
    features: dict[str, set[str]] = {name: set() for name in known}
    for suite in suites():
        features[suite.model_type] |= features_of(known[suite.model_type], suite.config)
    return features


def used_by_property_test(known: Mapping[str, Family]) -> Used:
    """What the property test can draw, as far as some draws show."""
    used: Used = set()

    def collect(name: str) -> None:
        @settings(max_examples=DRAWS, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
        @given(case=cases((name,)))
        def draw(case: Case) -> None:
            used.update((name, option) for option in in_options(Options(**case.options)))

        draw()

    for name in sorted(known.keys() & MODEL_TYPES):
        collect(name)
    return used


def load_module(path: Path) -> ModuleType:
    """Import a file of tests, without pytest."""
    name = f"support_table_{path.parent.parent.name}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def render() -> str:
    """The page."""
    known = families()
    evidence = {
        "G": used_by_golden_cases(),
        "M": used_with_megatron_core(),
        "R": used_by_plugins(),
        "P": used_by_property_test(known),
    }
    features = features_by_type(known)
    lines = [INTRODUCTION]
    for name, family in known.items():
        said = ", ".join(f"`{value}`" for value in family.model_type.config_model_types)
        parts = ", ".join(text for feature, text in FEATURES.items() if feature in features[name])
        lines.append(f"| `{name}` | `{family.plugin.distribution}` | {said} | {parts} |\n")
    lines.append(LEGEND)
    lines.append("| option | " + " | ".join(f"`{name}`" for name in known) + " |\n" + "|---" * (len(known) + 1) + "|\n")
    for row in rows(Options).values():
        cells = []
        for name in known:
            marks = " ".join(mark for mark, used in evidence.items() if (name, row.name) in used)
            lacks = row.feature is not None and row.feature not in features[name]
            lacks = lacks or row.name in known[name].model_type.refused
            cells.append("-" if lacks else marks or "yes")
        lines.append(f"| `{row.flag}` | " + " | ".join(cells) + " |\n")
    lines.append(CLOSING)
    return "".join(lines)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
