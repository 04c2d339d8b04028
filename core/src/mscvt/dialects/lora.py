"""What a dialect says of LoRA: the keys of factors, how they are cut, and what training is told of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol


class LoraNames(Protocol):
    """The face of a dialect's module `lora`."""

    @property
    def IS_SPREAD(self) -> bool:  # noqa: N802  # a constant of the module
        """Whether a factor that lacks the axis by which its weight is cut is cut too: A by ranks, B by rows."""

    @property
    def ALPHA_STANDS_IN(self) -> str:  # noqa: N802
        """Where the alpha of a run can be read, for whoever has to give it."""

    @property
    def HAS_ONE_RANK(self) -> bool:  # noqa: N802
        """Whether all factors of a run have one rank."""

    def factor_keys(self, key: str) -> tuple[str, str] | None:
        """The keys of A and B of the weight that has a key; None for what is no weight of a module."""

    def is_factor(self, key: str) -> bool:
        """Whether a key is one of an adapter's."""

    def part_key(self, key: str, role: str) -> str | None:
        """The key that one of the tensors of a fused weight would have, if training adapts each of them apart.

        Args:
            key: The fused weight's.
            role: The tensor's.
        """

    def is_halved(self, key: str) -> bool:
        """Whether a global tensor's rows are cut as those of two tensors are, though it is only one."""

    def explained(self, key: str) -> str | None:
        """What a key of an adapter is, where it is known and can't be converted."""

    def plain_key(self, key: str) -> str:
        """The key that a tensor of an adapted module has without what adapting it changed."""

    def target_module(self, key: str) -> str:
        """What the training script calls the module of a weight where it is told what to adapt."""

    def is_grouped(self, key: str) -> bool:
        """Whether a weight's factors are there whenever there are any, whatever is targeted."""

    def can_be_trained(self, key: str) -> bool:
        """Whether the training can adapt the module of a weight."""

    def check(self, options: Any) -> None:
        """Refuse layouts in which factors can't be written.

        Raises:
            MscvtError: All of them at once.
        """

    def args(self, rank: int, alpha: int, targets: Collection[str]) -> dict[str, Any]:
        """What `args` record of factors."""

    def flags(self, rank: int, alpha: int, targets: Collection[str]) -> tuple[str, ...]:
        """What the training script must be told of factors, besides their folder."""
