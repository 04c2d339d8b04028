"""The description of a model: every tensor of the training stack, its place, its layout and its Hugging Face names.

This is the one thing that every direction, the verification and the inspection are made from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from mscvt.description.chosen import RuleBook, choose_rules
from mscvt.description.reduced import check_reduced
from mscvt.dialects.dialect import Dialect
from mscvt.dialects.sizes import sizes, uneven
from mscvt.errors import Faults, MscvtError
from mscvt.layout.layout import Layout
from mscvt.layout.rules import Rule, fields_in
from mscvt.model.family import MODEL, MTP, MTP_REPEATS, Hyperparameters, Layer
from mscvt.model.layers import Selection
from mscvt.model.options import check_features
from mscvt.parallel.topology import Topology
from mscvt.plugins.family import Family
from mscvt.records import dataclass


@dataclass(frozen=True, slots=True)
class LayerPlace:
    """A layer, and where it stands in its chunk."""

    layer: Layer
    number: int
    """Among the layers of its chunk, decoder layers and MTP layers counted apart; keys have it."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A tensor of the training stack before it is cut, or, where its key holds an axis, one for each index."""

    stage: int
    chunk: str
    key: str
    """In full; axes that it holds stand in it as `{expert}`."""
    layout: Layout
    """Shared by all layers that follow the same rule and have the same sizes."""
    names: tuple[str, ...]
    """The Hugging Face tensors of the layout's right side; axes that a name holds stand in it. Empty for padding."""
    is_copy: bool = False
    """Whether another parameter holds the same tensor, so that the way back has no need of this one."""
    keeps_dtype: bool = False
    within: LayerPlace | None = None
    """The layer that it belongs to; None at the ends of the model."""

    @property
    def is_padding(self) -> bool:
        """Whether it is no tensor, but zeros that a Hugging Face tensor has where no other parameter fills it."""
        return self.layout.left[0].is_padding


@dataclass(frozen=True, slots=True)
class Alias:
    """A Hugging Face tensor that repeats another one under its own name."""

    of: str
    is_written: bool
    """Whether the way back gives it (as public checkpoints have it), or it is only tolerated in a source."""
    mark: str = ""
    """Which it is, whatever its layer's number: `0.head` is the head in the first MTP layer."""


@dataclass(frozen=True)
class Description:
    """A model under a topology."""

    topology: Topology
    parameters: tuple[Parameter, ...]
    aliases: Mapping[str, Alias]
    left_out: Mapping[str, str]
    """Hugging Face name -> why it is not converted (reduced layers, MTP not asked for)."""
    roles: frozenset[str]
    """All roles that the kept layers and the ends of the model have."""


def describe(
    family: Family,
    h: Hyperparameters,
    options: Any,
    topology: Topology,
    selection: Selection,
    dialect: Dialect,
    *,
    absent: Sequence[str] | None = (),
) -> Description:
    """Describe a model.

    Args:
        family: Whose model it is.
        h: Its sizes.
        options: The dialect's options, with defaults.
        topology: Where its layers go.
        selection: Its layers.
        dialect: What the training stack calls things.
        absent: Marks of aliases that the original checkpoint did not have; the way back doesn't give them either.
            None where nobody recorded it, and it gives those that the family's checkpoints usually have.

    Raises:
        MscvtError: Where the family has no rule for one of its roles, an option means nothing to it, or a size
            doesn't divide; all faults at once.
    """
    faults = Faults()
    check_features(options, family.features(selection.kept, h), family.model_type.name, faults)
    faults.raise_if_any("options that mean nothing to this model")
    check_reduced(family, h, options, selection)
    is_tied = bool(h.get("tie_word_embeddings"))
    rules = dialect.rules(options, h)
    own = family.rules(h, rules.blocks, rules.prefixes)
    if own and not (dialect.IS_USUAL or dialect.NAME in family.model_type.dialects):
        raise MscvtError(
            f"--dialect {dialect.NAME}: {family.plugin.distribution} has rules of its own for "
            f"{family.model_type.name}, and not for this dialect",
            hint=f"Leave out --dialect. A plugin whose rules hold there too says dialects=({dialect.NAME!r},) in its "
            "ModelType; where no module fits, its refused['dialect'] says why.",
        )
    family.check_fields(selection.kept, h, own)
    book = RuleBook(rules, own, {**sizes(h), **family.sizes(h)})
    placed = _Placed(family, h, topology, book, faults)
    parameters = (*placed.first(), *placed.layers(selection.kept), *placed.last(is_tied=is_tied))
    for axis, size, dimension, count in book.uneven(topology.grid.counts):
        fault, hint = uneven(options, axis, size, dimension, count)
        faults.add(fault, hint=hint)
    faults.raise_if_any("the model can't be laid out")
    if absent is None:
        absent = () if family.model_type.repeats_ends else [alias.mark for alias in placed.aliases.values()]
    aliases = {
        name: replace(alias, is_written=alias.is_written and alias.mark not in absent)
        for name, alias in placed.aliases.items()
    }
    left_out = dict(_left_out(family, h, selection.dropped, book.sizes))
    return Description(topology, parameters, aliases, left_out, frozenset(placed.roles))


class _Placed:
    """Makes the parameters of a model, part by part, and gathers what is said along the way."""

    def __init__(self, family: Family, h: Hyperparameters, topology: Topology, book: RuleBook, faults: Faults) -> None:
        self.family, self.h, self.topology, self.book, self.faults = family, h, topology, book, faults
        self.plugin = f"plugin {family.plugin.distribution} {family.plugin.version}"
        self.ends = family.end_names(h)
        self.aliases: dict[str, Alias] = {}
        self.roles = set(self.ends)

    def first(self) -> Iterator[Parameter]:
        chunk = self.topology.first
        for end in self.book.rules.first:
            if missing := sorted(end.rule.roles - self.ends.keys()):
                self.faults.add(
                    f"{self.plugin}, mscvt_names: it names no {', '.join(missing)} in the block {MODEL!r}",
                    hint="This is a fault of the plugin; report it to its authors.",
                )
                continue
            yield self.parameter(end.rule, self.ends, (chunk.stage, chunk.name), end.rule.key, end.is_copy)

    def check_head(self) -> None:
        """Refuse a model that is not tied and would have no output layer, whose key a rule of the family may have."""
        keys = {end.rule.key for end in self.book.rules.last if "head" in end.rule.roles}
        if "head" not in self.ends and not any(rule.key in keys for rule in self.book.own):
            self.faults.add(
                f"{self.plugin}, mscvt_names: it names no tensor for the role head, and tie_word_embeddings isn't true",
                hint="If the embedding is the output layer, config.json must say tie_word_embeddings; if models are so "
                "unless it says otherwise, the plugin's field is flag('tie_word_embeddings', default=True).",
            )

    def last(self, *, is_tied: bool) -> Iterator[Parameter]:
        if not is_tied:
            self.check_head()
        elif "head" in self.ends:
            self.aliases[self.ends["head"]] = Alias(self.ends["embedding"], is_written=False)
        taken = {role for end in self.book.rules.first for role in end.rule.roles} | ({"head"} if is_tied else set())
        own = [rule for rule in self.book.own if rule.roles <= self.ends.keys()]
        taken |= {role for rule in own for role in rule.roles}
        ends = [end for end in self.book.rules.last if end.is_copy or not end.rule.roles & taken]
        for end in ends:
            chunk = getattr(self.topology, end.place)
            if end.rule.roles <= self.ends.keys() and not (end.is_copy and chunk == self.topology.first):
                yield self.parameter(end.rule, self.ends, (chunk.stage, chunk.name), end.rule.key, end.is_copy)
                taken |= end.rule.roles
        chunk = self.topology.last
        for rule in own:
            yield self.parameter(rule, self.ends, (chunk.stage, chunk.name), rule.key)
        self.check_taken(set(self.ends), taken, "the model's ends")

    def layers(self, kept: Sequence[Layer]) -> Iterator[Parameter]:
        chosen: dict[tuple[tuple[str, ...], bool], list[tuple[Rule, Mapping[str, str]]]] = {}
        rules = self.book.rules
        for layer, (stage, chunk, number) in zip(kept, self.family.placement(self.topology, kept), strict=True):
            alike = layer.kind, layer.mtp is None
            if alike not in chosen:
                names = self.family.layer_names(layer, self.h)
                found = choose_rules((self.book.own, *rules.layer), names)
                self.check_taken(
                    set(names), {role for rule in found for role in rule.roles}, " + ".join(layer.kind) + " layers"
                )
                chosen[alike] = [(rule, names) for rule in found]
                self.roles |= names.keys()
            prefix = (rules.decoder_prefix if layer.mtp is None else rules.mtp_prefix).format(layer=number)
            within = LayerPlace(layer, number)
            for rule, names in chosen[alike]:
                yield self.parameter(rule, names, (stage, chunk), prefix + rule.key, within=within)
            if layer.mtp is not None:
                yield from self.beside(within, (stage, chunk))

    def beside(self, within: LayerPlace, place: tuple[int, str]) -> Iterator[Parameter]:
        """What an MTP layer has besides the decoder layer in it; what repeats the model's ends is an alias."""
        layer, number = within.layer, within.number
        names = self.family.names((MTP,), self.h)
        taken = set(names) & set(self.ends)
        self.roles |= names.keys()
        tables = {prefix: (self.book.own, table) for prefix, table in self.book.rules.mtp.items()}
        for prefix, choices in tables.items():
            for rule in choose_rules(choices, {role: name for role, name in names.items() if role not in taken}):
                taken |= rule.roles
                yield self.parameter(rule, names, place, prefix.format(layer=number) + rule.key, within=within)
        self.check_taken(set(names), taken, "MTP layers")
        for block, is_written in ((names, True), (self.family.names((MTP_REPEATS,), self.h), False)):
            for role in sorted(block.keys() & self.ends.keys()):
                original = "embedding" if role == "head" and self.h.get("tie_word_embeddings") else role
                alias = Alias(self.ends[original], is_written, f"{layer.mtp}.{role}")
                self.aliases[numbered(block[role], layer)] = alias

    def parameter(
        self,
        rule: Rule,
        names: Mapping[str, str],
        place: tuple[int, str],
        key: str,
        is_copy: bool = False,
        *,
        within: LayerPlace | None = None,
    ) -> Parameter:
        layer = within.layer if within is not None else None
        try:
            layout = self.book.layout(rule, names, layer.sizes if layer is not None else {})
        except MscvtError as error:
            raise MscvtError(f"{self.plugin}, {error.message}", hint=error.hint, faults=error.faults) from None
        filled = tuple("" if side.is_padding else numbered(names[side.name], layer) for side in layout.right)
        return Parameter(*place, key, layout, filled, is_copy, rule.keeps_dtype, within)

    def check_taken(self, roles: set[str], taken: set[str], where: str) -> None:
        if unknown := sorted(roles - taken):
            known = [rule.roles for table in self.book.rules.layer for rule in table if rule.roles & set(unknown)]
            lacking = min((sorted(together - roles) for together in known), key=len, default=[])
            hint = f"{self.family.plugin.distribution} must give rules for them in mscvt_split_rules."
            if lacking:
                hint = f"A rule takes it with {', '.join(lacking)}, which mscvt_names lacks; otherwise {hint}"
            self.faults.add(
                f"no rule for the role{'s' if len(unknown) > 1 else ''} {', '.join(unknown)} of {where}", hint=hint
            )


def _left_out(
    family: Family, h: Hyperparameters, dropped: Sequence[Layer], sizes: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    """Yield the names of everything that belongs to dropped layers, and why they are."""
    for layer in dropped:
        why = "reduced layers" if layer.mtp is None else "MTP layers not asked for"
        names = [*family.layer_names(layer, h).values()]
        if layer.mtp is not None:
            for block in (MTP, MTP_REPEATS):
                names += family.names((block,), h).values()
        for name in names:
            whole = numbered(name, layer)
            held = sorted(fields_in(whole))
            for at in product(*(range(sizes[axis]) for axis in held)):
                yield whole.format(**dict(zip(held, at, strict=True))), why


def numbered(name: str, layer: Layer | None) -> str:
    """A name with the layer's numbers in their places; axes stay as they are."""
    if layer is None:
        return name
    return name.replace("{layer}", str(layer.index)).replace("{mtp}", str(layer.mtp))
