"""Models with fewer layers than their configuration says, which somebody must be able to read back."""

from __future__ import annotations

from typing import Any

from mscvt.errors import MscvtError
from mscvt.model.family import Hyperparameters
from mscvt.model.hyperparameters import model_fields, of_kept_layers
from mscvt.model.layers import Selection
from mscvt.plugins.family import Family


def check_reduced(family: Family, h: Hyperparameters, options: Any, selection: Selection) -> None:
    """Refuse reduced layers that no configuration of the family describes.

    Raises:
        MscvtError: Names their kinds.
    """
    dense = options.first_k_dense_replace
    if options.num_layers is None and dense is None:
        return
    smaller = {**h, "num_layers": selection.decoder_count}
    smaller |= {} if dense is None else {"first_k_dense_replace": dense}
    recorded = {**of_kept_layers(h, family.model_type, selection.kept), **family.args(h, selection.kept)}
    fields = model_fields(family.model_type)
    smaller |= {name: value for name, value in recorded.items() if name in fields}
    kept, described = (
        [layer.kind for layer in layers if layer.mtp is None] for layers in (selection.kept, family.layers(smaller))
    )
    if kept != described:
        raise MscvtError(
            f"--num-layers {options.num_layers} with --first-k-dense-replace {dense} keeps layers of the kinds "
            f"{', '.join(map(' + '.join, kept))}, which no configuration of {family.model_type.name} describes",
            hint="Leave out --first-k-dense-replace, or choose another value.",
        )
