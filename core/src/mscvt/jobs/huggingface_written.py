"""A conversion that writes a checkpoint of Hugging Face, from a plan of its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mscvt.jobs.identity import folders_of, identity_of
from mscvt.jobs.models import Model
from mscvt.jobs.prepared import Conversion
from mscvt.jobs.request import Request
from mscvt.plan.contents import Plan
from mscvt.tensors.info import TORCH_NAMES
from mscvt.tensors.sources import Source


def to_huggingface(
    request: Request,
    model: Model,
    plan: Plan,
    source: Source,
    config: Mapping[str, Any] | None,
    notes: Sequence[str] = (),
    *,
    source_layout: bool = True,
) -> Conversion:
    """A conversion that writes files of Hugging Face, with a configuration where one is given.

    Args:
        request: What was asked for.
        model: The model that is read.
        plan: The files.
        source: What they are made from.
        config: The configuration that was read, or None.
        notes: What the user should know, besides what the model says.
        source_layout: Whether the source is laid out as the model's description says.
    """
    from mscvt.formats.huggingface.config_files import adapt_config, copy_config_files, find_config_files
    from mscvt.formats.huggingface.existing import listed_files
    from mscvt.formats.huggingface.writer import INDEX, allocate, offsets_in, write_index

    config_files = find_config_files(request.hf_cfg_dir) if request.hf_cfg_dir else []
    adapted = None
    said: tuple[str, ...] = ("config.json and the tokenizer are not written; --hf-cfg-dir DIR copies them",)
    if config is not None:
        adapted, said = adapt_config(config, model.h, model.family.model_type, TORCH_NAMES[plan.largest_dtype])

    def finish(folder: Path) -> None:
        if config is not None and adapted is not None:
            copy_config_files(config_files, folder, config, adapted)
        write_index(folder, plan.files)

    conversion = Conversion(
        plan=plan,
        source=source,
        allocate=lambda path, file: allocate(path, file.tensors),
        offsets=lambda path, file: offsets_in(path),
        finish=finish,
        finishing=(INDEX, *(path.name for path in config_files)),
        sources=folders_of(request),
        listed=listed_files,
        identity=identity_of("mg2hf", request, model.family, source.files, model.options, config),
        notes=(*model.notes, *notes, *said),
    )
    return replace(conversion, source_layout=model.description) if source_layout else conversion
