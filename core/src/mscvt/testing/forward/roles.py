"""The tensors of one layer by their roles, and which of them the arithmetic has asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

import torch
from torch import Tensor

from mscvt.errors import MscvtError
from mscvt.records import dataclass


@dataclass(frozen=True, slots=True)
class Roles:
    """Role -> tensor, in float32, for one layer or for the ends of the model.

    What is never read has had no part in the result; `unread` tells it, so that no tensor is ignored in silence.
    """

    where: str
    """How errors call it: `layer 3`."""
    tensors: Mapping[str, Tensor | Sequence[Tensor]]
    """Experts: a sequence with one tensor for each, or one tensor whose first axis is the expert."""
    index: int = 0
    """The layer's number in the decoder."""
    read: set[str] = field(default_factory=set)
    """The roles that were asked for."""

    def __getitem__(self, role: str) -> Tensor:
        """The tensor that plays a role.

        Raises:
            MscvtError: Where there is none.
        """
        tensor = self.get(role)
        if tensor is None:
            raise MscvtError(
                f"{self.where} has no tensor for the role {role}",
                hint=f"Its roles are {', '.join(sorted(self.tensors))}.",
            )
        return tensor

    def get(self, role: str) -> Tensor | None:
        """The tensor that plays a role, or None.

        Raises:
            MscvtError: Where the role has a sequence of tensors.
        """
        tensor = self.tensors.get(role)
        if tensor is None:
            return None
        if not isinstance(tensor, Tensor):
            raise MscvtError(f"{self.where}: {role} has {len(tensor)} tensors, expected one")
        self.read.add(role)
        return tensor.to(torch.float32)

    def has(self, prefix: str) -> bool:
        """Whether any role is `prefix` or begins with `prefix` and a point."""
        return any(role == prefix or role.startswith(f"{prefix}.") for role in self.tensors)

    def each(self, prefix: str) -> list[Roles]:
        """The roles that begin with `prefix` and a point, once for each expert.

        Raises:
            MscvtError: Where they don't all have equally many tensors.
        """
        several = {role: tensors for role, tensors in self.tensors.items() if role.startswith(f"{prefix}.")}
        counts = {role: len(tensors) for role, tensors in several.items()}
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{role} {count}" for role, count in sorted(counts.items()))
            raise MscvtError(f"{self.where}: the roles of {prefix} have unequally many tensors: {found}")
        return [
            Roles(f"{self.where}, expert {expert}", dict(zip(several, tensors, strict=True)), self.index, self.read)
            for expert, tensors in enumerate(zip(*several.values(), strict=True))
        ]

    def unread(self) -> list[str]:
        """The roles that nothing asked for, sorted."""
        return sorted(set(self.tensors) - self.read)

    def shapes(self) -> list[str]:
        """A line for each role, with its tensor's shape."""
        return [
            f"{role}: {list(tensor.shape)}" if isinstance(tensor, Tensor) else f"{role}: {len(tensor)} tensors"
            for role, tensor in sorted(self.tensors.items())
        ]


def tensors_by_role(
    names: Mapping[str, str], tensors: Mapping[str, Tensor], layer: int | None = None
) -> dict[str, Tensor | list[Tensor]]:
    """The tensors of one layer, or of the ends of the model, by their roles.

    Args:
        names: Role -> name, with `{layer}` and `{expert}` where a number stands.
        tensors: Name -> tensor.
        layer: The number that `{layer}` stands for.

    Returns:
        Role -> tensor; a list of tensors in the order of experts where the name has `{expert}`.

    Raises:
        MscvtError: For names that no tensor has.
    """
    found: dict[str, Tensor | list[Tensor]] = {}
    missing = []
    for role, name in names.items():
        if "{expert}" in name:
            experts: list[Tensor] = []
            while (one := name.format(layer=layer, expert=len(experts))) in tensors:
                experts.append(tensors[one])
            if experts:
                found[role] = experts
                continue
        else:
            one = name.format(layer=layer)
            if one in tensors:
                found[role] = tensors[one]
                continue
        missing.append(f"{role}: {one}")
    if missing:
        raise MscvtError("the table of names has names that the model lacks", faults=missing)
    return found
