"""The face of a dialect: what one training stack calls things, and all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from mscvt.layout.rules import Rule
from mscvt.model.family import Hyperparameters
from mscvt.parallel.topology import Topology
from mscvt.plugins.rule_blocks import RuleBlocks


class End(NamedTuple):
    """A tensor outside of the layers."""

    rule: Rule
    is_copy: bool = False
    """Whether another rank holds the same tensor, so that the way back has no need of this one."""


@dataclass(frozen=True, slots=True)
class Rules:
    """One naming scheme: rules for layers, for the ends of the model and for MTP, and the prefixes of keys."""

    layer: tuple[tuple[Rule, ...], ...]
    """Tables in order: a rule holds only for roles that no table before its own has taken."""
    first: tuple[End, ...]
    """What stands in the first chunk."""
    last: tuple[End, ...]
    """What stands in the chunk after the last layer."""
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


class Dialect(Protocol):
    """What the rest of the program asks a training stack. A dialect is a package with these functions."""

    def check(self, options: Any) -> None:
        """Refuse options that contradict one another.

        Raises:
            MscvtError: All faults at once.
        """

    def rules(self, options: Any, *, is_tied: bool) -> Rules:
        """The rules under these options; every option that changes names or layouts is decided here."""

    def sizes(self, h: Hyperparameters) -> Mapping[str, int]:
        """The sizes of all axes that the rules speak of, as far as the model has them."""

    def topology(self, options: Any, layers: int) -> Topology:
        """Lay out so many real layers.

        Raises:
            MscvtError: Where options contradict each other or the number of layers; all faults at once.
        """

    def uneven(self, options: Any, axis: str, size: int, dimension: str, count: int) -> tuple[str, str]:
        """Say that an axis can't be cut evenly, and what to do about it."""
