"""What all layers of a model share: its configuration, and the conventions that no configuration says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, TypeAlias

from torch import Tensor

from mscvt.errors import MscvtError
from mscvt.records import dataclass
from mscvt.testing.forward.roles import Roles


@dataclass(frozen=True, slots=True)
class Conventions:
    """Arithmetic that neither the roles nor `config.json` tell; the defaults are what most families do."""

    norm_offset: float = 0.0
    """Added to the weights of norms: one, where checkpoints hold them minus one."""
    scales_embedding: bool = False
    """Embeddings are multiplied by the square root of the hidden size."""
    router: str | None = None
    """A row of `routers.ROUTERS`; None: sigmoid where there is a router bias, else softmax."""
    indexer_rope_interleave: bool = False
    """The indexer turns neighbouring channels, as latent attention around it does, not halves."""


@dataclass(frozen=True, slots=True)
class Model:
    """The configuration and what layers leave to later ones."""

    config: Mapping[str, Any]
    """`config.json` as transformers 5 spells it."""
    conventions: Conventions
    kept: dict[str, Tensor] = field(default_factory=dict)
    """What a layer computes for layers after it, such as the choice of a shared indexer."""

    def value(self, *names: str, default: Any = ...) -> Any:
        """The first of these fields that is there and not null.

        Raises:
            MscvtError: Where none is and there is no default.
        """
        for name in names:
            if self.config.get(name) is not None:
                return self.config[name]
        if default is ...:
            raise MscvtError(
                f"the configuration has no {' or '.join(names)}",
                hint="Give the configuration as transformers 5 writes it, with all its fields.",
            )
        return default

    @property
    def eps(self) -> float:
        """The constant of norms."""
        return float(self.value("rms_norm_eps", "layer_norm_eps"))

    def window(self, layer: int) -> int | None:
        """How many tokens a token of a layer sees, itself included; None: all before it."""
        types = self.value("layer_types", default=None)
        if types is not None and types[layer] != "sliding_attention":
            return None
        window: int | None = self.value("sliding_window", default=None)
        return window


Block: TypeAlias = Callable[[Tensor, Roles, Model], Tensor]
"""Normalised hidden states `[batch, sequence, hidden]`, a layer, the model -> what is added to the residual."""
