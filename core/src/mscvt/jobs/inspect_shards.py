"""What is in a folder of shards: recognised, opened as far as it can be, and compared with what it recorded."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mscvt.dialects.known import dialect_named, recognise
from mscvt.dialects.lora import LoraNames
from mscvt.dialects.options import Options
from mscvt.errors import MscvtError
from mscvt.errors.folding import fold
from mscvt.formats.huggingface.config import read_config
from mscvt.jobs.models import Model
from mscvt.jobs.recorded_models import model_from_args
from mscvt.jobs.request import Request
from mscvt.jobs.sources import open_megatron, open_tensors
from mscvt.model.options import rows
from mscvt.model.values import shown
from mscvt.plan.by_huggingface import uses_by_name
from mscvt.plugins.registry import Registry
from mscvt.tensors.sources import Source
from mscvt.views.checkpoint import Inspection, weigh
from mscvt.views.experts import expert_places
from mscvt.views.files import FileGroup, SizedFile, group_files
from mscvt.views.names import NameRow, NameTable
from mscvt.views.pipeline import pipeline_of
from mscvt.views.preview import Side
from mscvt.views.shard_names import shard_table
from mscvt.views.sizes import counted

if TYPE_CHECKING:
    from mscvt.jobs.sources import MegatronCheckpoint


def inspect_shards(
    folder: Path, registry: Registry, model_type: str | None, iteration: int | None, hf_cfg_dir: Path | None
) -> tuple[Inspection, Source]:
    """Look into a folder of shards.

    Args:
        folder: The folder, or that of one of its iterations.
        registry: The plugins.
        model_type: What to take it as; by default what it recorded.
        iteration: The iteration; by default the latest.
        hf_cfg_dir: Where the model's `config.json` is, or None.

    Returns:
        What was found, and the checkpoint, which is open.

    Raises:
        MscvtError: Where there is none, or its first shard can't be read.
    """
    source = open_megatron(folder, iteration)
    odd: list[str] = []
    request = Request(folder, Options(), model_type=model_type, iteration=iteration, hf_cfg_dir=hf_cfg_dir)
    model = _model_of(source, request, registry, odd)
    is_open = _open(source, model, odd)
    description = None if model is None or not is_open else model.description
    kind = recognise(source.args, source.some_shapes).dialect if model is None else model.dialect.NAME
    lora = dialect_named(kind).lora
    table = shard_table(source.tensors, description, lora.plain_key)
    notes = list(model.notes) if model is not None else []
    factors = sum(row.count for row in table.left_over if lora.is_factor(row.names))
    are_alone = bool(factors) and not table.rows
    if factors:
        notes.append(f"{counted(factors, 'tensor')} are factors of LoRA{', and nothing else' if are_alone else ''}")
    if are_alone:
        table = replace(table, missing=())
    odd += _faults_of(table, lora, knows_model=description is not None)
    facts = {"iteration": _iterations(folder, source.folder.name), **_recorded(source.args)}
    if model is not None:
        facts["layers"] = layers_text(model)
    groups = _groups(source)
    found = Inspection(
        folder=str(folder),
        kind=kind,
        what=f"a Megatron checkpoint in the format {source.ckpt_format}, with the names of {kind}",
        model_type=None if model is None else model.family.model_type.name,
        parameters=None if model is None else _parameters(model),
        facts=facts,
        dtypes=weigh(source.tensors.values()),
        groups=groups,
        nbytes=sum(group.total for group in groups),
        side=None
        if description is None
        else Side(is_source=True, pipeline=pipeline_of(description), experts=expert_places(description)),
        table=table,
        odd=tuple(odd),
        notes=tuple(notes),
        next="" if model is None or odd else _next(folder, iteration, are_alone=are_alone),
    )
    return found, source


def _model_of(source: MegatronCheckpoint, request: Request, registry: Registry, odd: list[str]) -> Model | None:
    """The model that a checkpoint says it is; None where it doesn't say it, or contradicts itself."""
    try:
        config = read_config(request.hf_cfg_dir) if request.hf_cfg_dir else None
        return model_from_args(source, config, request, registry)
    except MscvtError as error:
        if request.model_type is not None or request.hf_cfg_dir is not None:
            raise
        odd += [error.message, *error.faults]
    return None


def _open(source: MegatronCheckpoint, model: Model | None, odd: list[str]) -> bool:
    """Open all tensors; those that can be, where not all can.

    Returns:
        Whether the tensors have the names that the model gives them.
    """
    from mscvt.formats.megatron_torch.reader import MegatronSource

    if model is not None:
        try:
            open_tensors(source, model)
        except MscvtError as error:
            odd += [error.message, *error.faults]
        else:
            return True
    if isinstance(source, MegatronSource):
        stages = source.args.get(rows(Options)["target_pipeline_parallel_size"].recorded[0])
        faults = source.open_present(stages if isinstance(stages, int) else 1)
        odd += [fault for fault in faults if fault not in odd]
        return True
    source.open({}, "model")
    return False


def _faults_of(table: NameTable, lora: LoraNames, *, knows_model: bool) -> list[str]:
    """What differs from what the checkpoint's `args` describe."""
    if not knows_model:
        return []
    others = [row for row in table.left_over if not lora.is_factor(row.names)]
    return [
        *(f"no rule knows {row.names}, {_times(row)}" for row in others),
        *(f"missing on every rank: {row.names}" for row in table.missing),
        *(
            f"{row.names} has the shape {list(row.shape)}, args say {list(row.part.shape)}, {_times(row)}"
            for row in table.rows
            if row.part is not None and row.part.shape != row.shape
        ),
    ]


def _next(folder: Path, iteration: int | None, *, are_alone: bool) -> str:
    chosen = "" if iteration is None else f" --iteration {iteration}"
    lora = " --save-lora-to-hf" if are_alone else ""
    return f"mscvt plan mg2hf --load-dir {shlex.quote(str(folder))}{chosen}{lora}"


def _times(row: NameRow) -> str:
    return f"{row.count} times"


def _iterations(folder: Path, opened: str) -> str:
    """The iteration that is shown, and which others are there."""
    names = sorted(path.name for path in folder.iterdir() if path.name.startswith("iter_") or path.name == "release")
    others = [name for name in names if name != opened]
    return f"{opened}, there are also {', '.join(fold(others))}" if others else opened


def _recorded(args: Mapping[str, Any]) -> dict[str, str]:
    """What `args` record of options, as they are written on a command line."""
    found = {}
    for row in rows(Options).values():
        name = next((name for name in row.recorded if args.get(name) is not None), None)
        if name is not None and args[name] not in (False, row.default, "", ()):
            value = args[name]
            is_plain = isinstance(value, (int, str)) or (
                isinstance(value, (list, tuple)) and all(isinstance(item, (int, str)) for item in value)
            )
            found[row.flag] = "" if value is True else shown(value)[:200] if is_plain else type(value).__name__
    if not args:
        found["args"] = "none are recorded"
    return found


def layers_text(model: Model) -> str:
    """How many layers a model has."""
    mtp = sum(layer.mtp is not None for layer in model.kept)
    return f"{len(model.kept) - mtp}{f' and {mtp} of MTP' if mtp else ''}"


def _parameters(model: Model) -> int:
    return sum(uses[0].side.numel for uses in uses_by_name(model.description).values())


def _groups(source: MegatronCheckpoint) -> tuple[FileGroup, ...]:
    """The files, those of a stage that are alike together."""
    from mscvt.formats.megatron_torch.reader import MegatronSource

    counts: dict[int, int] = {}
    for info in source.tensors.values():
        counts[info.file] = counts.get(info.file, 0) + 1
    stages = [rank.pipeline for rank in source.records] if isinstance(source, MegatronSource) else []
    return group_files(
        SizedFile(str(path.relative_to(source.folder.parent)), path.stat().st_size, counts.get(number, 0), stage)
        for number, (path, stage) in enumerate(zip_longest(source.files, stages))
    )
