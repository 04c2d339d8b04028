"""What is in a folder, whatever it is: a checkpoint of either side in any format, or an adapter."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from mscvt.errors import MscvtError, shown
from mscvt.formats.huggingface.config import CONFIG, read_config
from mscvt.formats.huggingface.folders import adapter_base, is_of_shards, refuse_other_folder
from mscvt.formats.huggingface.reader import HuggingFaceSource
from mscvt.formats.peft.names import CONFIG as ADAPTER
from mscvt.jobs.check_model import compare_with_model
from mscvt.jobs.inspect_shards import inspect_shards, layers_text
from mscvt.jobs.whole_model import whole_model
from mscvt.plan.by_huggingface import uses_by_name
from mscvt.plugins.registry import Registry
from mscvt.tensors.sources import Source
from mscvt.views.checkpoint import Inspection, Scan, weigh
from mscvt.views.files import SizedFile, group_files
from mscvt.views.names import name_table

Scanner = Callable[[Source], Scan]
"""Reads every value of a checkpoint."""


def inspect_folder(
    folder: Path,
    registry: Registry,
    *,
    model_type: str | None = None,
    iteration: int | None = None,
    hf_cfg_dir: Path | None = None,
    scanner: Scanner | None = None,
) -> Inspection:
    """Look into a folder, from headers alone unless values are to be read too.

    Args:
        folder: The folder.
        registry: The plugins.
        model_type: What to take it as; by default what it says itself.
        iteration: The iteration to look at; by default the latest.
        hf_cfg_dir: Where the model's `config.json` is, for shards that don't record what it says.
        scanner: Reads the values; None leaves them alone.

    Raises:
        MscvtError: Where it is no checkpoint, which says what it is instead, or nothing of it can be read.
    """
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        names = []
    if is_of_shards(names):
        found, source = inspect_shards(folder, registry, model_type, iteration, hf_cfg_dir)
    elif ADAPTER in names and CONFIG not in names:
        found, source = _inspect_adapter(folder)
    else:
        refuse_other_folder(folder)
        found, source = _inspect_huggingface(folder, registry, model_type)
    try:
        return found if scanner is None else replace(found, scan=scanner(source))
    finally:
        source.close()


def _inspect_huggingface(folder: Path, registry: Registry, model_type: str | None) -> tuple[Inspection, Source]:
    source = HuggingFaceSource(folder)
    odd: list[str] = []
    notes = list(source.notes)
    parameters = sum(info.numel for info in source.tensors.values())
    table, name, facts = name_table(source.tensors, None), None, dict[str, str]()
    try:
        config = read_config(folder)
        facts = _said(config)
        family = registry.family(model_type) if model_type is not None else registry.recognise(config)
        name = family.model_type.name
        model = whole_model(family, folder)
    except MscvtError as error:
        if model_type is not None:
            raise
        notes.append(f"no roles are shown: {error.message}")
    else:
        facts["layers"] = layers_text(model)
        table = name_table(source.tensors, model.description, family.model_type.ignored)
        try:
            notes += compare_with_model(folder, source, config, family)
            parameters = sum(uses[0].side.numel for uses in uses_by_name(model.description).values())
        except MscvtError as error:
            odd += error.faults or [error.message]
    found = _inspection(folder, "huggingface", "a Hugging Face checkpoint", source)
    found = replace(
        found, model_type=name, parameters=parameters, facts=facts, table=table, odd=tuple(odd), notes=tuple(notes)
    )
    if name is not None and not odd:
        found = replace(found, next=f"mscvt plan hf2mg --load-dir {shlex.quote(str(folder))}")
    return found, source


def _inspect_adapter(folder: Path) -> tuple[Inspection, Source]:
    from mscvt.formats.peft.reader import Adapter

    adapter = Adapter(folder)
    found = _inspection(folder, "adapter", f"a LoRA adapter of {adapter_base(folder)}, in PEFT's format", adapter)
    config = adapter.config
    facts = {
        "rank": str(config.rank),
        "alpha": f"{config.alpha:g}",
        "modules": f"{len(adapter.modules)}: " + ", ".join(sorted({name.split(".")[-1] for name in adapter.modules})),
    }
    return replace(found, parameters=sum(info.numel for info in adapter.tensors.values()), facts=facts), adapter


_SAID = ("model_type", "architectures", "torch_dtype", "dtype", "transformers_version")


def _said(config: Mapping[str, object]) -> dict[str, str]:
    """What `config.json` says of itself."""
    said = {name: config[name] for name in _SAID if config.get(name)}
    return {
        name: shown(", ".join(map(str, value)) if isinstance(value, list) else value) for name, value in said.items()
    }


def _inspection(folder: Path, kind: str, what: str, source: Source) -> Inspection:
    """What can be said of any checkpoint in files that lie in the folder itself."""
    counts = [0] * len(source.files)
    for info in source.tensors.values():
        counts[info.file] += 1
    weights = [(path, count) for path, count in zip(source.files, counts, strict=True) if count]
    sized = [SizedFile(path.name, path.stat().st_size, count, None) for path, count in weights]
    endings = ", ".join(sorted({path.suffix for path, _ in weights}))
    return Inspection(
        folder=str(folder),
        kind=kind,
        what=f"{what} ({endings or 'no weights'})",
        model_type=None,
        parameters=None,
        facts={},
        dtypes=weigh(source.tensors.values()),
        groups=group_files(sized),
        nbytes=sum(file.nbytes for file in sized),
        side=None,
        table=name_table(source.tensors, None),
        odd=(),
        notes=(),
    )
