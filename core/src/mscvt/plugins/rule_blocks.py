"""What a family's own rules can be made of: the dialect's rules for blocks, under other keys and roles."""

from __future__ import annotations

from typing import Protocol

from mscvt.layout.rules import Rule


class RuleBlocks(Protocol):
    """The dialect's rules under the options of a conversion, for layers that have a block more than once."""

    @property
    def dialect(self) -> str:
        """The dialect that keys are wanted in."""

    def spelled(self, key: str) -> str:
        """A key of a family's own tensor as the dialect has it."""

    def attention(self, module: str, roles: str) -> tuple[Rule, ...]:
        """Grouped-query attention in a module (`self_attention_1.`), with roles `attention.q` as `ROLES.q`, ..."""

    def latent_attention(self, module: str, roles: str) -> tuple[Rule, ...]:
        """Multi-head latent attention."""

    def gated_mlp(self, module: str, roles: str, ffn: str) -> tuple[Rule, ...]:
        """A dense gated MLP whose width is the axis `ffn`."""

    def vocabulary(self, key: str, role: str, columns: str) -> Rule:
        """A tensor with a row for each word, cut by rows and filled up with zeros; `columns` may be empty."""
