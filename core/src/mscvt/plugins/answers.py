"""What answers of a plugin must be made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mscvt.layout.rules import Rule, Source
from mscvt.model.family import Own


def is_rule(rule: Rule) -> bool:
    """Whether the fields of a rule are of their types, so that it can be checked further."""
    texts = [rule.key, rule.axes, rule.shape]
    if not isinstance(rule.sources, tuple) or not all(isinstance(source, Source) for source in rule.sources):
        return False
    if not isinstance(rule.cuts, Mapping) or not isinstance(rule.beside, frozenset):
        return False
    texts += [text for source in rule.sources for text in (source.role, source.axes)]
    return all(isinstance(text, str) for text in (*texts, *rule.beside, *rule.cuts, *rule.cuts.values()))


def is_sizes(value: Any) -> bool:
    """Whether a value is names of sizes."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and type(size) is int and size >= 0 for name, size in value.items()
    )


def is_words(value: Any) -> bool:
    """Whether a value is a list of words, and not one word."""
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(word, str) for word in value)


def is_table(value: Any, is_item: Callable[[Any], bool]) -> bool:
    """Whether a value is names of items."""
    return isinstance(value, Mapping) and all(isinstance(name, str) and is_item(item) for name, item in value.items())


def is_texts(value: Any) -> bool:
    """Whether a value is names of texts."""
    return is_table(value, lambda text: isinstance(text, str))


def is_names(value: Any) -> bool:
    """Whether a value is block -> role -> name."""
    return is_table(value, is_texts)


def is_own(value: Any) -> bool:
    """Whether a value is a list of a family's own tensors."""
    return isinstance(value, Sequence) and all(isinstance(item, Own) for item in value)


def is_plain(value: Any) -> bool:
    """Whether a value consists of None, numbers, text, lists and tables of them alone."""
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    return value is None or type(value) in (bool, int, float, str)
