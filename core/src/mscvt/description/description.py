"""The description of a model: every Megatron tensor, its place, its layout and its Hugging Face names.

This is the one thing that both directions, the verification and the inspection are made from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mscvt.dialects.mindspeed.rules import AXIS_LABELS, EMBEDDING, Dialect, axis_sizes, choose_dialect
from mscvt.errors import Faults, MscvtError
from mscvt.layout.rules import Resolved, Rule, resolve
from mscvt.model.family import MODEL, MTP, Hyperparameters
from mscvt.model.layers import Selection
from mscvt.model.options import check_features
from mscvt.parallel.topology import DIMENSION_FLAGS, EXPERT, Topology
from mscvt.plugins.registry import Family


@dataclass(frozen=True, slots=True)
class Parameter:
    """One Megatron tensor before it is cut: where it stands and what lies in it."""

    stage: int
    part: str
    key: str
    resolved: Resolved
    """Shared by all layers that follow the same rule."""
    names: tuple[str | None, ...]
    """The Hugging Face tensor of each part of the layout; None for padding."""
    bucket: int | None = None
    """The expert bucket that alone holds it, where a key stands for one expert."""
    is_copy: bool = False
    """Whether another parameter holds the same tensor, so that the way back has no need of this one."""
    keeps_dtype: bool = False


@dataclass(frozen=True, slots=True)
class Alias:
    """A Hugging Face tensor that repeats another one under its own name."""

    of: str
    is_written: bool
    """Whether the way back gives it (as public checkpoints have it), or it is only tolerated in a source."""


@dataclass(frozen=True)
class Description:
    """A model under a topology."""

    topology: Topology
    parameters: tuple[Parameter, ...]
    aliases: Mapping[str, Alias]
    left_out: Mapping[str, str]
    """Hugging Face name -> why it is not converted (reduced layers, MTP not asked for)."""
    kinds: frozenset[str]
    """The kinds of all layers that are kept."""


def describe(family: Family, hyperparameters: Hyperparameters, topology: Topology, selection: Selection) -> Description:
    """Describe a model.

    Raises:
        MscvtError: Where the family has no rule for one of its roles, an option means nothing to it, or
            a size doesn't divide; all faults at once.
    """
    return _Builder(family, hyperparameters, topology, selection).build()


class _Builder:
    def __init__(self, family: Family, h: Hyperparameters, topology: Topology, selection: Selection) -> None:
        self.family, self.h, self.topology, self.selection = family, h, topology, selection
        self.dialect: Dialect = choose_dialect(topology.options)
        self.sizes = axis_sizes(h)
        self.own_rules = tuple(family.call("mscvt_split_rules", hyperparameters=h) or ())
        self.faults = Faults()
        self.resolved: dict[int, Resolved] = {}
        self.chosen: dict[str, list[tuple[Rule, Mapping[str, str]]]] = {}
        self.top = family.names(MODEL)
        self.aliases: dict[str, Alias] = {}

    def build(self) -> Description:
        kinds = frozenset(layer.kind for layer in self.selection.kept)
        features = self.family.features_of(kinds)
        check_features(self.topology.options, features, self.family.model_type.name, self.faults)
        self.faults.raise_if_any("options that mean nothing to this model")
        self.check_reduced()
        parameters = [*self.first(), *self.layers(), *self.last()]
        self.faults.raise_if_any("the model can't be laid out")
        return Description(self.topology, tuple(parameters), self.aliases, self.left_out(), kinds)

    def check_reduced(self) -> None:
        """Refuse reduced layers that no configuration of the family describes: nobody could read them back."""
        options = self.topology.options
        dense = options.first_k_dense_replace
        if options.num_layers is None and dense is None:
            return
        smaller = {**self.h, "num_layers": self.selection.decoder_count}
        smaller |= {} if dense is None else {"first_k_dense_replace": dense}
        again = self.family.call("mscvt_layers", hyperparameters=smaller)
        kept, described = (
            [layer.kind for layer in layers if layer.mtp is None] for layers in (self.selection.kept, again)
        )
        if kept != described:
            raise MscvtError(
                f"--num-layers {options.num_layers} with --first-k-dense-replace {dense} keeps layers of the kinds "
                f"{', '.join(kept)}, which no configuration of {self.family.model_type.name} describes",
                hint="Leave out --first-k-dense-replace, or choose another value.",
            )

    def first(self) -> Iterator[Parameter]:
        chunk = self.topology.first
        for rule in self.dialect.first:
            yield from self.parameters(rule, self.top, (chunk.stage, chunk.part), "", {})

    def last(self) -> Iterator[Parameter]:
        chunk = self.topology.last
        place = (chunk.stage, chunk.part)
        many_stages = (self.topology.options.target_pipeline_parallel_size or 1) > 1
        names = dict(self.top)
        tied = bool(self.h.get("tie_word_embeddings"))
        if tied and "head" in names:
            self.aliases[names["head"]] = Alias(names["embedding"], is_written=False)
            names["head"] = names["embedding"]
        for rule in self.dialect.last:
            is_tied_head = tied and "head" in rule.roles
            if not rule.roles <= names.keys() or (is_tied_head and not many_stages):
                continue
            yield from self.parameters(rule, names, place, "", {}, is_copy=is_tied_head)
        if many_stages and any(layer.mtp is not None for layer in self.selection.kept):
            yield from self.parameters(EMBEDDING, self.top, place, "", {}, is_copy=True)

    def layers(self) -> Iterator[Parameter]:
        kept = self.selection.kept
        places = self.family.call("mscvt_placement", topology=self.topology, layers=kept)
        if len(places) != len(kept):
            raise MscvtError(
                f"mscvt_placement of {self.family.plugin.distribution} placed {len(places)} of {len(kept)} layers"
            )
        for layer, (stage, part, number) in zip(kept, places, strict=True):
            numbers = {"layer": layer.index}
            prefix = self.dialect.decoder_prefix if layer.mtp is None else self.dialect.mtp_prefix
            for rule, names in self.rules_of(layer.kind):
                yield from self.parameters(rule, names, (stage, part), prefix.format(layer=number), numbers)
            if layer.mtp is not None:
                names = self.names(MTP)
                for rule in self.dialect.mtp:
                    renumbered = rule.key.format(layer=number)
                    yield from self.parameters(rule, names, (stage, part), "", numbers, key=renumbered)
                for role in sorted(names.keys() & self.top.keys()):
                    primary = self.top[role]
                    if role == "head" and self.h.get("tie_word_embeddings"):
                        primary = self.top["embedding"]
                    self.aliases[names[role].format(layer=layer.index)] = Alias(primary, is_written=True)

    def rules_of(self, kind: str) -> list[tuple[Rule, Mapping[str, str]]]:
        """The rules that hold for a kind of layer; the same ones for every layer of that kind."""
        if kind not in self.chosen:
            names = self.names(kind)
            taken: set[str] = set()
            rules: list[Rule] = []
            for table in (self.own_rules, *self.dialect.layer):
                holding = [
                    rule
                    for rule in table
                    if rule.roles <= names.keys() and not rule.roles & taken and rule.beside <= names.keys()
                ]
                rules += holding
                taken |= {role for rule in holding for role in rule.roles}
            if unknown := sorted(names.keys() - taken):
                self.faults.add(
                    f"no rule for the role{'s' if len(unknown) > 1 else ''} {', '.join(unknown)} of {kind} layers",
                    hint=f"{self.family.plugin.distribution} must give rules for them in mscvt_split_rules.",
                )
            self.chosen[kind] = [(rule, names) for rule in rules]
        return self.chosen[kind]

    def names(self, kind: str) -> Mapping[str, str]:
        names = self.family.names(kind)
        if not names:
            raise MscvtError(
                f"plugin {self.family.plugin.distribution} enumerates {kind!r} layers and names none of their tensors"
            )
        return names

    def parameters(
        self,
        rule: Rule,
        names: Mapping[str, str],
        place: tuple[int, str],
        prefix: str,
        numbers: Mapping[str, int],
        *,
        key: str | None = None,
        is_copy: bool = False,
    ) -> Iterator[Parameter]:
        """One parameter, or with `{expert}` in the key one for each expert."""
        resolved = self.resolve(rule)
        key = prefix + (rule.key if key is None else key)
        if "{expert}" not in rule.key:
            filled = self.fill(resolved, names, numbers)
            yield Parameter(*place, key, resolved, filled, None, is_copy, rule.keeps_dtype)
            return
        experts, buckets = self.sizes["expert"], self.topology.counts[EXPERT]
        share = experts // buckets or 1
        if experts % buckets:
            self.uneven("expert", experts, EXPERT, buckets)
            return
        for expert in range(experts):
            filled = self.fill(resolved, names, {**numbers, "expert": expert})
            numbered = key.replace("{expert}", str(expert % share))
            yield Parameter(*place, numbered, resolved, filled, expert // share, is_copy, rule.keeps_dtype)

    def resolve(self, rule: Rule) -> Resolved:
        if id(rule) not in self.resolved:
            resolved = resolve(rule, self.sizes)
            for axis, size, dimension, count in resolved.layout.uneven(self.topology.counts):
                self.uneven(axis, size, dimension, count)
            self.resolved[id(rule)] = resolved
        return self.resolved[id(rule)]

    def fill(self, resolved: Resolved, names: Mapping[str, str], numbers: Mapping[str, int]) -> tuple[str | None, ...]:
        """The names of all parts, with the numbers in their places."""
        return tuple(
            names[role].format(**(numbers if index is None else {**numbers, "expert": index}))
            if role in names
            else None
            for role, index in resolved.sources
        )

    def uneven(self, axis: str, size: int, dimension: str, count: int) -> None:
        options = self.topology.options
        label = AXIS_LABELS.get(axis, axis)
        by = f"{DIMENSION_FLAGS[dimension]} {count}"
        hint = f"Choose a size that divides {size}."
        if dimension == EXPERT and options.moe_tp_extend_ep:
            by = (
                f"the {count} ranks that --moe-tp-extend-ep spreads them over (--target-expert-parallel-size "
                f"{options.target_expert_parallel_size} x --target-tensor-parallel-size "
                f"{options.target_tensor_parallel_size})"
            )
        elif axis == "vocab":
            hint = (
                "--make-vocab-size-divisible-by 1 pads it with zero rows to the next multiple of "
                f"{count} (128 is the training script's own default)."
            )
        elif dimension not in (EXPERT,) and dimension != "tensor":
            by = f"--target-tensor-parallel-size {count}"
        self.faults.add(f"{size} {label} are not divisible by {by}", hint=hint)

    def left_out(self) -> dict[str, str]:
        """The names of everything that belongs to dropped layers."""
        found: dict[str, str] = {}
        for layer in self.selection.dropped:
            why = "reduced layers" if layer.mtp is None else "MTP layers not asked for"
            names: list[str] = [*self.family.names(layer.kind).values()]
            if layer.mtp is not None:
                names += self.family.names(MTP).values()
            for name in names:
                if "{expert}" in name:
                    experts: Sequence[int] = range(self.sizes["expert"])
                else:
                    experts = (0,)
                for expert in experts:
                    found[name.format(layer=layer.index, expert=expert)] = why
        return found
