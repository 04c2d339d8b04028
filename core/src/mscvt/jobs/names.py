"""Looking at the names of a Hugging Face checkpoint, with a model type or without any."""

from __future__ import annotations

from pathlib import Path

from mscvt.errors import MscvtError
from mscvt.formats.huggingface.config import read_config
from mscvt.formats.huggingface.reader import HuggingFaceSource
from mscvt.jobs.whole_model import whole_model
from mscvt.plugins.registry import Registry
from mscvt.records import dataclass
from mscvt.views.names import NameTable, name_table


@dataclass(frozen=True, slots=True)
class Names:
    """A checkpoint's names."""

    model_type: str | None
    """The model type that roles and keys belong to, or None."""
    table: NameTable
    notes: tuple[str, ...]


def look_at_names(folder: Path, registry: Registry, model_type: str | None = None) -> Names:
    """Fold the names of a checkpoint from its headers alone.

    Args:
        folder: The checkpoint. `config.json` is only needed for a model type.
        registry: The plugins.
        model_type: The model type to look at it as; None takes that of `config.json`, or none where no plugin serves
            it.

    Raises:
        MscvtError: Where headers can't be read, or the model type that was asked for doesn't fit `config.json`.
    """
    source = HuggingFaceSource(folder)
    try:
        family = registry.family(model_type) if model_type is not None else registry.recognise(read_config(folder))
        description = whole_model(family, folder).description
    except MscvtError as error:
        if model_type is not None:
            raise
        return Names(None, name_table(source.tensors, None), (*source.notes, f"no roles are shown: {error.message}"))
    table = name_table(source.tensors, description, family.model_type.ignored)
    return Names(family.model_type.name, table, tuple(source.notes))
