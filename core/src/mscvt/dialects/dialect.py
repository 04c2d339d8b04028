"""The face of a dialect: what one training stack calls things, and all of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from mscvt.dialects.lora import LoraNames
from mscvt.layout.rules import Rule
from mscvt.model.family import Hyperparameters, Layer
from mscvt.parallel.topology import Topology
from mscvt.plugins.family import Family
from mscvt.plugins.rule_blocks import RuleBlocks
from mscvt.records import dataclass
from mscvt.tensors.slots import Slot


class Recorded(NamedTuple):
    """`args` in our words."""

    args: Mapping[str, Any]
    notes: tuple[str, ...]
    """What was passed over, one line each."""
    experts: Sequence[Any] | None = None
    """Whether each slot has experts, one entry for each; None where that is not recorded so."""


Place = Literal["last", "last_layer", "mtp"]


class End(NamedTuple):
    """A tensor outside of the layers."""

    rule: Rule
    is_copy: bool = False
    """Whether another rank holds the same tensor, so that the way back has no need of this one. In the first chunk
    there is no copy: that has the original."""
    place: Place = "last"
    """Which chunk it stands in: the one after the last layer, that of the last layer itself, or that of MTP."""


@dataclass(frozen=True, slots=True)
class Rules:
    """One naming scheme: rules for layers, for the ends of the model and for MTP, and the prefixes of keys."""

    layer: tuple[tuple[Rule, ...], ...]
    """Tables in order: a rule holds only for roles that no table before its own has taken."""
    first: tuple[End, ...]
    """What stands in the first chunk."""
    last: tuple[End, ...]
    """What stands behind the layers."""
    mtp: Mapping[str, tuple[Rule, ...]]
    """Prefix -> rules for what an MTP layer has besides its decoder layer."""
    decoder_prefix: str
    """The prefix of a decoder layer's keys, with `{layer}`."""
    mtp_prefix: str
    """The prefix of the keys of the decoder layer in an MTP layer."""
    blocks: RuleBlocks
    """What a family's own rules can be made of."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What is put before the keys of layers, up to their number."""
        return tuple(prefix.partition("{")[0] for prefix in (self.decoder_prefix, self.mtp_prefix, *self.mtp))


class Distributed(Protocol):
    """The names of global tensors in distributed checkpoints, by the keys of a model that is in one piece."""

    def in_vain(self, options: Any) -> str | None:
        """Say which of the options that were asked for change nothing of the tensors, if there are any."""

    def slots(self, options: Any, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, Slot]:
        """Where each tensor of a model lies, by key; `shapes` has all of its tensors."""

    def content(self, slots: Mapping[str, Slot]) -> Mapping[str, bool]:
        """What the checkpoint says of these places."""

    def objects(self, slots: Mapping[str, Slot], states: Sequence[str]) -> Iterable[str]:
        """The names of the objects that loaders expect, for the keys of modules' states."""

    def readings(
        self, keys: Collection[str], there: Collection[str], factors: Collection[str] = ()
    ) -> Mapping[str, Sequence[tuple[Slot, ...]]]:
        """The ways in which a checkpoint has tensors and factors, by the names that are there.

        Each is what lies one behind the other.
        """


class Dialect(Protocol):
    """What the rest of the program asks a training stack. A dialect is a package with these functions."""

    @property
    def NAME(self) -> str:  # noqa: N802  # a constant of the package
        """How `--dialect` calls it."""

    @property
    def IS_USUAL(self) -> bool:  # noqa: N802
        """Whether it is the one that families' own rules, args and flags speak of."""

    @property
    def ITERATION(self) -> int | str:  # noqa: N802
        """The iteration that a converted checkpoint is said to be of, as its tracker has it."""

    @property
    def DISTRIBUTED(self) -> Distributed | None:  # noqa: N802
        """Its names in distributed checkpoints; None where it has no such format."""

    @property
    def lora(self) -> LoraNames:
        """What it says of LoRA; a module."""

    def check(self, options: Any, h: Hyperparameters, parts: Collection[frozenset[str]]) -> None:
        """Refuse options that contradict one another, or a model that the stack has no modules for under them.

        Args:
            options: The options, with defaults.
            h: The model's sizes.
            parts: The roles of its ends, and of each kind of layer.

        Raises:
            MscvtError: All faults at once.
        """

    def rules(self, options: Any, h: Hyperparameters) -> Rules:
        """The rules under these options; every option that changes names or layouts is decided here."""

    def topology(self, options: Any, layers: int, there: Collection[tuple[int, int]] | None = None) -> Topology:
        """Lay out so many real layers.

        Args:
            options: The options, with defaults.
            layers: The decoder layers.
            there: The (tensor, expert) ranks that a checkpoint has which exists already; None for one to be written.

        Raises:
            MscvtError: Where options contradict each other or the number of layers; all faults at once.
        """

    def empty_states(self, options: Any, keys: Sequence[str]) -> Sequence[str]:
        """Keys without a value that the training loader expects in a chunk besides these keys of tensors."""

    def in_our_words(self, args: Mapping[str, Any], fields: Collection[str]) -> Recorded:
        """What a checkpoint recorded, in the words that `mscvt.dialects.args_read` reads.

        Args:
            args: What it recorded.
            fields: The hyperparameters that models of this type have.

        Raises:
            MscvtError: Where something is recorded that can't be said in our words.
        """

    def make_args(
        self, family: Family, h: Hyperparameters, options: Any, kept: Sequence[Layer], absent: Sequence[str]
    ) -> dict[str, Any]:
        """Everything that the training loader and the way back want to know, as plain values.

        Args:
            family: The family whose model it is.
            h: The sizes of the model as it was converted.
            options: Validated, with defaults.
            kept: The layers that are kept.
            absent: What the source's MTP layers could have repeated and did not.
        """

    def training_flags(
        self, family: Family, options: Any, h: Hyperparameters, kept: Sequence[Layer], settings: Mapping[str, Any]
    ) -> tuple[str, ...]:
        """What the training script must be told so that it loads the checkpoint, an option and its value each.

        Args:
            family: The family whose model it is.
            options: With defaults.
            h: The sizes of the model as it was converted.
            kept: The layers that are kept.
            settings: How tokens are routed and positions scaled, as `mscvt.dialects.settings` gives it.
        """

    def unsaid(self, settings: Mapping[str, Any], roles: Collection[str]) -> tuple[str, ...]:
        """What of the settings the training script has no option for, one line each.

        Args:
            settings: As `mscvt.dialects.settings` gives them.
            roles: The roles of the layers that are kept.
        """
