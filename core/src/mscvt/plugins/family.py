"""A family: a model type together with the hooks of the plugin that serves it, whose answers are checked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import field
from types import MappingProxyType
from typing import Any, TypeVar

from mscvt.errors import MscvtError
from mscvt.layout.rules import Rule, check_rule, fields_in, whole
from mscvt.model.family import DENSE, MODEL, MOE, MTP, Hyperparameters, Layer, ModelType
from mscvt.model.hyperparameters import model_fields, sizes_of_kept
from mscvt.parallel.topology import Topology
from mscvt.plugins.answers import is_names, is_plain, is_rule, is_sizes, is_words
from mscvt.plugins.flags import filled, given_by, spoken_of
from mscvt.plugins.places import check_places
from mscvt.plugins.rule_blocks import RuleBlocks
from mscvt.records import dataclass

T = TypeVar("T")


_NEEDED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "moe.expert.": ("num_experts", "moe_intermediate_size"),
        "mla.": ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"),
    }
)
"""What roles begin with -> the hyperparameters without which they have no sizes."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A distribution's plugin, loaded or not.

    Attributes:
        distribution, version: Those of the distribution that declares the entry point.
        entry_point: Name and target, as `mine = mscvt_mine`.
        model_types: What it serves; empty where it failed to load.
        error: Why it could not be loaded, or what it clashes with; None where all is well.
        notes: What its users should know, one line each.
    """

    distribution: str
    version: str
    entry_point: str
    model_types: tuple[str, ...] = ()
    error: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        """Distribution and version."""
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class Family:
    """A model type and its hooks; every method raises MscvtError for a wrong answer, naming plugin and hook."""

    model_type: ModelType
    plugin: Plugin
    hooks: Mapping[str, Any] = field(repr=False)

    def names(self, blocks: Iterable[str], h: Hyperparameters) -> Mapping[str, str]:
        """Role -> name, merged from blocks; empty where the family has none of them."""
        merged: dict[str, str] = {}
        for block in blocks:
            names = self._block(block, h)
            if names is None:
                continue
            if not is_names({block: names}):
                raise self._wrong("mscvt_names", f"it returned {names!r:.200} for {block!r}, expected role -> name")
            for role, name in names.items():
                try:
                    fields_in(name)
                except ValueError as error:
                    raise self._wrong("mscvt_names", f"{role} has the name {name!r}: {error}") from None
                if merged.setdefault(role, name) != name:
                    raise self._wrong(
                        "mscvt_names", f"{role} has two names in one layer, {merged[role]!r} and {name!r} ({block!r})"
                    )
        return merged

    def layer_names(self, layer: Layer, h: Hyperparameters) -> Mapping[str, str]:
        """Role -> name of a layer's tensors, without what an MTP layer has besides."""
        self._check_blocks(layer, h)
        names = self.names(layer.kind, h)
        if layer.mtp is not None and self.model_type.mtp_prefix:
            within = {role: name.partition("{layer}.")[2] for role, name in names.items()}
            names = {role: self.model_type.mtp_prefix + name for role, name in within.items()}
        for role, name in names.items():
            if layer.mtp is None and "layer" not in fields_in(name):
                raise self._wrong("mscvt_names", f"{role} of a layer has the name {name!r}, which needs {{layer}}")
        if not names:
            said = f"it names no tensors of layers of the kind {layer.kind!r}, which mscvt_layers enumerates"
            raise self._wrong("mscvt_names", said)
        return names

    def _check_blocks(self, layer: Layer, h: Hyperparameters) -> None:
        for block in layer.kind:
            if self._block(block, h) is None:
                said = f"it has no block {block!r}, and layer {layer.index} consists of {' + '.join(layer.kind)}; "
                usual = "attention and mlp where a plugin doesn't implement it"
                raise self._wrong("mscvt_names", f"{said}mscvt_layers says which blocks layers have, {usual}")

    def _block(self, block: str, h: Hyperparameters) -> Any:
        """Role -> name as the hook says it, or else the model type; None where the family has no such block."""
        said = self._call("mscvt_names", block=block, hyperparameters=h)
        if said is not None:
            return said
        model_type = self.model_type
        own = {block: {own.role: own.name for own in tensors} for block, tensors in model_type.own.items()}
        every = (model_type.names, *(names for switch, names in model_type.names_if.items() if h.get(switch)), own)
        found = [names[block] for names in every if block in names]
        return {role: name for names in found for role, name in names.items()} if found else None

    def end_names(self, h: Hyperparameters) -> Mapping[str, str]:
        """Role -> name of the tensors outside of the layers."""
        names = self.names((MODEL,), h)
        if "embedding" not in names:
            raise self._wrong("mscvt_names", f"the block {MODEL!r} names no tensor for the role embedding")
        return names

    def layers(self, h: Hyperparameters) -> tuple[Layer, ...]:
        """The model's layers, decoder layers first."""
        layers = self._sequence("mscvt_layers", Layer, hyperparameters=h)
        for layer in layers:
            if isinstance(layer.kind, str) or not all(isinstance(block, str) for block in layer.kind):
                raise self._wrong(
                    "mscvt_layers", f"layer {layer.index} has the kind {layer.kind!r}, expected a tuple of blocks"
                )
            if not is_sizes(layer.sizes):
                raise self._wrong(
                    "mscvt_layers",
                    f"layer {layer.index} has the sizes {layer.sizes!r:.200}, expected names of whole numbers",
                )
        if sorted(layers, key=lambda layer: layer.mtp is not None) != list(layers):
            raise self._wrong("mscvt_layers", "an MTP layer stands before a decoder layer")
        return layers

    def rules(self, h: Hyperparameters, blocks: RuleBlocks, prefixes: Sequence[str]) -> tuple[Rule, ...]:
        """The family's own rules.

        Args:
            h: The model's sizes.
            blocks: What rules can be made of.
            prefixes: What is put before the keys of layers, up to their number.
        """
        own = [own for block in self.model_type.own.values() for own in block]
        rules = (
            *self._sequence("mscvt_split_rules", Rule, hyperparameters=h, blocks=blocks),
            *(whole(blocks.spelled(o.key), o.role, o.axes, cuts=o.cuts, keeps_dtype=o.keeps_dtype) for o in own),
        )
        for rule in rules:
            if not is_rule(rule):
                raise self._wrong(
                    "mscvt_split_rules", f"it returned {rule!r:.200}, expected text and a tuple of Source"
                )
            if rule.key.startswith(tuple(prefixes)):
                raise self._wrong(
                    "mscvt_split_rules", f"the key {rule.key!r} has the layer's prefix, which is put before it"
                )
            try:
                check_rule(rule)
            except MscvtError as error:
                raise MscvtError(self._where("mscvt_split_rules", error.message), faults=error.faults) from None
        return rules

    def check_fields(self, layers: Iterable[Layer], h: Hyperparameters, rules: Iterable[Rule]) -> None:
        """Refuse layers whose roles need sizes that no field gives, unless the family's own rules take these roles.

        Raises:
            MscvtError: Names the fields.
        """
        roles = self.roles(layers, h) - {role for rule in rules for role in rule.roles}
        for prefix, fields in _NEEDED.items():
            lacking = [name for name in fields if name not in h]
            if lacking and any(role.startswith(prefix) for role in roles):
                raise self._wrong(
                    "fields",
                    f"its layers have the roles {prefix}*, which need {', '.join(lacking)}, and its model type has no "
                    f"such field: fields={{{lacking[0]!r}: count(...)}}",
                )

    def placement(self, topology: Topology, layers: Sequence[Layer]) -> list[tuple[int, str, int]]:
        """(Stage, chunk, number inside the chunk) of each layer."""
        places = self._sequence("mscvt_placement", tuple, topology=topology, layers=layers)
        if len(places) != len(layers):
            raise self._wrong("mscvt_placement", f"it placed {len(places)} of {len(layers)} layers")
        faults = check_places(topology, layers, places)
        faults.raise_if_any(self._where("mscvt_placement", "it placed layers where nothing is"))
        return list(places)

    def sizes(self, h: Hyperparameters) -> Mapping[str, int]:
        """The sizes that the model type adds."""
        sizes = self._try("sizes", lambda: self.model_type.sizes(h))
        if not is_sizes(sizes):
            raise self._wrong("sizes", f"it returned {sizes!r:.200}, expected names of whole numbers")
        return dict(sizes)

    def args(self, h: Hyperparameters, layers: Sequence[Layer]) -> Mapping[str, Any]:
        """What the model type adds to `args` for the layers that are kept."""
        given = self.model_type.args
        sizes = sizes_of_kept(h, self.model_type, layers)
        args = self._try("args", lambda: given(sizes, layers)) if callable(given) else given
        if not isinstance(args, Mapping) or not is_plain(dict(args)):
            raise self._wrong("args", f"it gives {args!r:.200}, expected names of plain values (numbers, text, lists)")
        return args

    def flags(
        self, h: Hyperparameters, layers: Sequence[Layer], args: Mapping[str, Any], dialect: str
    ) -> tuple[str, ...]:
        """What the training script of a dialect must be told of the model itself.

        Args:
            h: The model's sizes.
            layers: The layers that are kept.
            args: What is recorded of the model.
            dialect: The dialect's name.
        """
        given: Any = self.model_type.flags
        given = given.get(dialect, ()) if isinstance(given, Mapping) else given
        if callable(given):
            flags = self._try("flags", lambda: given_by(given, sizes_of_kept(h, self.model_type, layers), layers))
            if not is_words(flags):
                raise self._wrong("flags", f"it returned {flags!r:.200}, expected a list of words")
            return tuple(flags)
        if unknown := sorted(spoken_of(given) - args.keys() - model_fields(self.model_type).keys()):
            raise self._wrong("flags", f"they speak of {', '.join(unknown)}, which is no field and not in args")
        return tuple(filled(given, args))

    def left_out(self, h: Hyperparameters) -> Mapping[str, str]:
        """Pattern of source tensors that are not converted -> why."""
        more = self._try("left_out", lambda: self.model_type.left_out(h))
        if not isinstance(more, Mapping) or not all(isinstance(text, str) for item in more.items() for text in item):
            raise self._wrong("left_out", f"it returned {more!r:.200}, expected pattern -> why")
        return {**dict.fromkeys(self.model_type.ignored, "holds no weights"), **more}

    def respelled(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """A configuration in the spelling that the fields are read in."""
        answer = self._try("respell", lambda: self.model_type.respell(config))
        if not isinstance(answer, Mapping):
            raise self._wrong("respell", f"it returned {answer!r:.200}, expected a configuration")
        return answer

    def matches(self, config: Mapping[str, Any]) -> bool:
        """Whether a configuration whose `model_type` is this type's is one of this type."""
        return bool(self._try("matches", lambda: self.model_type.matches(config)))

    def roles(self, layers: Iterable[Layer], h: Hyperparameters) -> frozenset[str]:
        """All roles that some layers have."""
        return frozenset().union(*self._kinds(layers, h))

    def parts(self, layers: Iterable[Layer], h: Hyperparameters) -> tuple[frozenset[str], ...]:
        """The roles of the model's ends, and of each kind of layer."""
        return (frozenset(self.end_names(h)), *self._kinds(layers, h))

    def _kinds(self, layers: Iterable[Layer], h: Hyperparameters) -> list[frozenset[str]]:
        kinds = {(*layer.kind, *((MTP,) if layer.mtp is not None else ())) for layer in layers}
        return [frozenset(self.names(kind, h)) for kind in sorted(kinds)]

    def features(self, layers: Collection[Layer], h: Hyperparameters) -> frozenset[str]:
        """The first words of their roles (`moe`, `mla`, `mtp`, ...), and of what other models of the type may have."""
        for layer in {layer.kind: layer for layer in sorted(layers, key=lambda layer: -layer.index)}.values():
            self._check_blocks(layer, h)
        return frozenset(role.partition(".")[0] for role in self.usual_roles(layers, h))

    def usual_roles(self, layers: Iterable[Layer], h: Hyperparameters) -> frozenset[str]:
        """All roles that some layers have, and those that other models of the type may have."""
        usual = {role for block in (*DENSE, *MOE, MTP) for role in self.names((block,), h)}
        return self.roles(layers, h) | usual

    def _sequence(self, hook: str, item: type[T], **arguments: Any) -> tuple[T, ...]:
        answer = self._call(hook, **arguments)
        if not isinstance(answer, Sequence) or not all(isinstance(one, item) for one in answer):
            raise self._wrong(hook, f"it returned {answer!r:.200}, expected a list of {item.__name__}")
        return tuple(answer)

    def _call(self, hook: str, **arguments: Any) -> Any:
        """Call a hook on the serving plugin, then on the core's defaults."""
        return self._try(hook, lambda: self.hooks[hook](model_type=self.model_type.name, **arguments))

    def _try(self, what: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except MscvtError:
            raise
        except Exception as error:
            raise MscvtError(
                self._where(what, f"failed: {type(error).__name__}: {error}"),
                hint="Report this to the plugin's authors; --debug shows the traceback.",
            ) from error

    def _where(self, hook: str, what: str) -> str:
        return f"plugin {self.plugin.distribution} {self.plugin.version}, {hook} for {self.model_type.name}: {what}"

    def _wrong(self, hook: str, what: str) -> MscvtError:
        return MscvtError(self._where(hook, what), hint="This is a fault of the plugin; report it to its authors.")
