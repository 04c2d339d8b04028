"""What a family's own rules do otherwise than the dialect's rules for the same roles, which they replace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from mscvt.description.description import Parameter
from mscvt.dialects import mindspeed
from mscvt.dialects.dialect import Rules
from mscvt.dialects.options import Options
from mscvt.layout.layout import Layout, Side
from mscvt.layout.pairs import Pair
from mscvt.layout.rules import DIMENSIONS, Rule
from mscvt.model.options import with_defaults
from mscvt.plugins.family import Family
from mscvt.testing.sources import describe_whole, sizes_of

_COUNTS = dict.fromkeys(DIMENSIONS, 2)
"""How many ways each dimension cuts: enough to tell one cut from another."""


def own_rules(family: Family, config: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The family's own rules, under default options."""
    rules = mindspeed.rules(with_defaults(Options()), {})
    return family.rules(sizes_of(family, config), rules.blocks, rules.prefixes)


def differences(family: Family, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (key, what differs) for each own rule that stands for one of the dialect's.

    Where a role has another number of elements than the dialect's rule gives it, such as a norm of all heads, there is
    nothing to compare; nor where a Hugging Face tensor has but another dimension of 1.
    """
    known = {rule.roles for rule in _every(mindspeed.rules(with_defaults(Options()), {}))}
    replacing = {rule.roles for rule in own_rules(family, config)} & known
    if not replacing:
        return
    given = family.hooks["mscvt_split_rules"]

    def others(**asked: Any) -> Sequence[Rule]:
        return [rule for rule in given(**asked) if rule.roles not in replacing]

    usual = replace(family, hooks={**family.hooks, "mscvt_split_rules": others})
    theirs = _by_roles(usual, config)
    seen: set[tuple[str, frozenset[str]]] = set()
    for place, own in _by_roles(family, config).items():
        roles, other = place[1], theirs.get(place)
        key = own.layout.left[0].name
        if roles not in replacing or other is None or (key, roles) in seen:
            continue
        seen.add((key, roles))
        what = _difference(own.layout, other.layout) if _counts(own.layout) == _counts(other.layout) else None
        if what is None and own.keeps_dtype != other.keeps_dtype:
            what = f"keeps_dtype={own.keeps_dtype}"
        if what is not None:
            yield key, f"{', '.join(sorted(roles))}: {what}"


def _every(rules: Rules) -> Iterator[Rule]:
    yield from (end.rule for end in (*rules.first, *rules.last))
    for table in (*rules.layer, *rules.mtp.values()):
        yield from table


def _by_roles(family: Family, config: Mapping[str, Any]) -> dict[tuple[Any, frozenset[str]], Parameter]:
    """(Layer, roles) -> the parameter that is made of them."""
    return {
        (parameter.within, frozenset(side.name for side in parameter.layout.right if not side.is_padding)): parameter
        for parameter in describe_whole(family, config).parameters
        if not parameter.is_copy
    }


def _counts(layout: Layout) -> dict[str, int]:
    return {side.name: side.numel * len(side.indices) for side in layout.right}


def _difference(own: Layout, other: Layout) -> str | None:
    ours, theirs = own.left[0], other.left[0]
    if ours.name != theirs.name:
        return f"the key {ours.name!r}, the core's is {theirs.name!r}"
    for side in own.right:
        usual = next(one for one in other.right if one.name == side.name)
        if _plain(side.shape) != _plain(usual.shape):
            return f"a source of the shape {list(side.shape)}, the core's is {list(usual.shape)}"
    if _plain(ours.shape) != _plain(theirs.shape):
        return f"the shape {list(ours.shape)}, the core's is {list(theirs.shape)}"
    if _held(own, {}) != _held(other, {}):
        return "elements in other places than the core's rule puts them"
    if all(_held(own, place) == _held(other, place) for place in _places()):
        return None
    if own.cuts == other.cuts:
        return "axes in another order, so that a rank has other elements"
    return f"cut by {dict(own.cuts) or 'nothing'}, the core's by {dict(other.cuts) or 'nothing'}"


def _plain(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _places() -> Iterator[dict[str, int]]:
    """A rank for each place in all dimensions."""
    names = sorted(DIMENSIONS)
    yield from (dict(zip(names, at, strict=True)) for at in product(range(2), repeat=len(names)))


def _held(layout: Layout, place: Mapping[str, int]) -> dict[tuple[int, ...], dict[int, tuple[Any, ...]]]:
    """Numbers in the key -> element of what a rank holds -> where it comes from; without a place, of the whole."""
    counts = _COUNTS if place else dict.fromkeys(DIMENSIONS, 1)
    index = tuple(place.get(dimension, 0) for dimension in layout.dimensions)
    return {
        share.numbers: {
            left: (*_source(layout.right[piece.source], piece.held), right)
            for piece in share.pieces
            for left, right in _met(piece.pair)
        }
        for share in layout.shares(counts, [index])
    }


def _source(side: Side, held: tuple[int, ...]) -> tuple[Any, ...]:
    return side.name, *sorted(zip(side.held, held, strict=True))


def _met(pair: Pair) -> Iterator[tuple[int, int]]:
    """The elements on both sides that a walk meets."""
    for at in product(*(range(loop.extent) for loop in pair.loops)):
        steps = list(zip(at, pair.loops, strict=True))
        yield (
            pair.left + sum(step * loop.left for step, loop in steps),
            pair.right + sum(step * loop.right for step, loop in steps),
        )
