"""Which of a model's layers are kept: all of them, or those that reduced layers leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mscvt.errors import Faults
from mscvt.model.family import MOE, Layer
from mscvt.model.options import flag
from mscvt.records import dataclass


class Reduction(Protocol):
    """What was asked for of a model's layers; None means all."""

    @property
    def num_layers(self) -> int | None:
        """Decoder layers, noop layers not counted."""

    @property
    def first_k_dense_replace(self) -> int | None:
        """Leading dense layers."""

    @property
    def mtp_num_layers(self) -> int | None:
        """MTP layers."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The layers of a conversion, in order, and those that are left out."""

    kept: tuple[Layer, ...]
    """Decoder layers, then MTP layers."""
    dropped: tuple[Layer, ...]

    @property
    def decoder_count(self) -> int:
        """How many layers are kept, MTP layers not counted."""
        return sum(layer.mtp is None for layer in self.kept)


def select_layers(layers: Sequence[Layer], options: Reduction) -> Selection:
    """Apply `--num-layers`, `--first-k-dense-replace` and `--mtp-num-layers`.

    `--first-k-dense-replace f` keeps f of the leading dense layers and goes on after the last of them.

    Raises:
        MscvtError: Where more is asked for than the model has; all faults at once.
    """
    faults = Faults()
    decoder = [layer for layer in layers if layer.mtp is None]
    mtp = [layer for layer in layers if layer.mtp is not None]
    wanted, dense, depth = options.num_layers, options.first_k_dense_replace, options.mtp_num_layers or 0
    pool = decoder
    if wanted is not None and wanted > len(decoder):
        faults.add(
            f"{flag('num_layers')} {wanted}: the model has {len(decoder)} layers (MTP not counted)",
            hint=f"Give {flag('num_layers')} at most {len(decoder)}; noop layers are not counted.",
        )
    elif dense is not None:
        leading = next((i for i, layer in enumerate(decoder) if MOE[-1] in layer.kind), len(decoder))
        pool = decoder[: min(dense, leading)] + decoder[leading:]
        if dense > leading:
            faults.add(
                f"{flag('first_k_dense_replace')} {dense}: the model has {leading} leading dense layers",
                hint=f"Give {flag('first_k_dense_replace')} at most {leading}, or leave it out.",
            )
        elif wanted is None and dense < leading:
            faults.add(
                f"{flag('first_k_dense_replace')} {dense} leaves out layers, and {flag('num_layers')} is not given",
                hint=f"Give {flag('num_layers')}, at most {len(pool)}.",
            )
        elif wanted is not None and wanted > len(pool):
            faults.add(
                f"{flag('num_layers')} {wanted}: with {flag('first_k_dense_replace')} {dense} the model has "
                f"{len(pool)} layers",
                hint=f"Give {flag('num_layers')} at most {len(pool)}.",
            )
    if depth > len(mtp):
        faults.add(
            f"{flag('mtp_num_layers')} {depth}: the model has {len(mtp)} MTP layers",
            hint=f"Give {flag('mtp_num_layers')} at most {len(mtp)}. "
            "If the weights have more, config.json must say it, with most families as num_nextn_predict_layers.",
        )
    faults.raise_if_any("the model has less than was asked for")
    kept = (*pool[:wanted], *mtp[:depth])
    chosen = set(kept)
    return Selection(kept, tuple(layer for layer in layers if layer not in chosen))
