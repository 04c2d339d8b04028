"""Do the tensors of a checkpoint make the model that its `config.json` describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mscvt.errors import MscvtError
from mscvt.jobs.plans import check_tensors
from mscvt.jobs.whole_model import whole_model
from mscvt.plugins.family import Family
from mscvt.tensors.quantized.dequantize import DequantizedSource, find_quantized
from mscvt.tensors.renamed import renamed
from mscvt.tensors.sources import NotedSource


def compare_with_model(folder: Path, source: NotedSource, config: Mapping[str, Any], family: Family) -> tuple[str, ...]:
    """Compare names and shapes of all tensors with those of the model.

    Args:
        folder: Where the checkpoint is.
        source: Its tensors, quantized or not.
        config: Its `config.json`.
        family: What to take it as.

    Returns:
        What should be known, one line each.

    Raises:
        MscvtError: Where tensors are missing, left over or of another shape; all of them at once.
    """
    quantized = find_quantized(source, config)
    decoded = DequantizedSource(source, quantized) if quantized else source
    tensors = renamed(decoded, family.model_type.spellings).tensors
    notes = (f"{len(quantized)} weights are quantized; --dequantize decodes them on the way",) if quantized else ()
    model = whole_model(family, folder)
    try:
        check_tensors(model.description, tensors, family.left_out(model.h))
    except MscvtError:
        without = whole_model(family, folder, with_mtp=False)
        mtp = without.description.left_out.keys()
        if not mtp or mtp & tensors.keys():
            raise
        check_tensors(without.description, tensors, family.left_out(without.h))
        return (*notes, "the MTP layers that config.json counts are not there; conversions leave them out")
    return notes
