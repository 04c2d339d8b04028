"""What the commands do, once their parameters are read. Imported only when a command runs."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mscvt.cli.parameters import read_options
from mscvt.cli.progress import show_progress
from mscvt.errors import MscvtError
from mscvt.plugins.registry import load_registry

if TYPE_CHECKING:
    from mscvt.jobs.conversion import Conversion, Result


def run_convert(save_model_type: str, given: Mapping[str, Any]) -> None:
    """Convert, and say what was done."""
    from mscvt.jobs.conversion import Settings, run_conversion
    from mscvt.jobs.prepare import Request, prepare_to_huggingface, prepare_to_megatron

    _check_direction(given["load_dir"], save_model_type)
    request = Request(
        load_dir=given["load_dir"],
        options=read_options(given),
        model_type=given["model_type_hf"],
        dtype=given["dtype"],
        dequantize=given.get("dequantize", False),
        hf_cfg_dir=given.get("hf_cfg_dir"),
        iteration=given.get("iteration"),
    )
    prepare = prepare_to_megatron if save_model_type == "mg" else prepare_to_huggingface
    with _interruptible("nothing was begun; the same command goes on with what earlier runs left"):
        conversion = prepare(request, load_registry())
        if given["dry_run"]:
            _report_plan(conversion, given["only"], as_json=given["json"])
            return
        with show_progress(wanted=not given["json"]) as (started, progress):
            settings = Settings(
                workers=given["workers"],
                max_memory=given["max_memory"],
                overwrite=given["overwrite"],
                resume=given["resume"],
                only=given["only"],
                verify=given["verify"],
                started=started,
                progress=progress,
            )
            result = run_conversion(conversion, given["save_dir"], settings)
    _report(conversion, result, as_json=given["json"])


@contextmanager
def _interruptible(what: str) -> Iterator[None]:
    """End soon after Ctrl-C, and say what is left."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        typer.echo(f"\ninterrupted; {str(interrupt) or what}", err=True)
        if any(thread.name.startswith("mscvt-") for thread in threading.enumerate()):
            os._exit(130)  # a slow disk holds a worker up; an interpreter that ends around it would crash
        raise typer.Exit(130) from None


_MARKS = {"hf": "config.json", "mg": "latest_checkpointed_iteration.txt"}
"""What a checkpoint of either kind has beside its weights."""
_NAMES = {"hf": "Hugging Face", "mg": "Megatron"}


def _check_direction(folder: Path, wanted: str) -> None:
    """Refuse to convert what is already of the wanted kind, which is more help than what is missing in it."""
    other = "hf" if wanted == "mg" else "mg"
    if (folder / _MARKS[wanted]).exists() and not (folder / _MARKS[other]).exists():
        raise MscvtError(
            f"{folder}: has {_MARKS[wanted]}, so it is a {_NAMES[wanted]} checkpoint; "
            f"expected one of {_NAMES[other]}, with {_MARKS[other]}",
            hint=f"mscvt {wanted}2{other} converts in the other direction.",
        )


def _report(conversion: Conversion, result: Result, *, as_json: bool) -> None:
    if as_json:
        paths = {"target": str(result.target), "staging": str(result.staging)}
        shown = {**asdict(result), **paths, "notes": conversion.notes}
        if conversion.training_flags:
            shown["training_flags"] = conversion.training_flags
        typer.echo(json.dumps(shown, indent=2))
        return
    where = result.target if result.is_complete else result.staging
    if result.written:
        speed = result.written / 1e6 / max(result.seconds, 1e-9)
        typer.echo(
            f"wrote {_counted(result.files, 'file')}, {result.written:,} bytes in {result.seconds:.1f} s "
            f"({speed:,.0f} MB/s) to {where}"
        )
    else:
        typer.echo(f"nothing was left to be written of {_counted(result.files, 'file')} in {where}")
    if result.resumed_tensors and result.written:
        typer.echo(f"went on with earlier work: {_counted(result.resumed_tensors, 'tensor')} were there already")
    if result.verified:
        typer.echo("verified: every byte was read again and is what it should be")
    for note in conversion.notes:
        typer.echo(f"note: {note}")
    if not result.is_complete and not result.missing:
        typer.echo(f"another run is completing {result.target}")
    elif not result.is_complete:
        rest = f"{', '.join(result.missing[:5])}{', ...' if len(result.missing) > 5 else ''}"
        typer.echo(
            f"{_counted(len(result.missing), 'file')} still to be written: {rest}; "
            f"{result.target} appears when all of them are"
        )
    elif conversion.training_flags:
        typer.echo(f"pass to the training script: --load {result.target} {conversion.training_flags}")


def _report_plan(conversion: Conversion, only: str | None, *, as_json: bool) -> None:
    from mscvt.plan.selection import select_files

    chosen = select_files(conversion.plan.files, only)
    nbytes = sum(file.nbytes for file in chosen)
    if as_json:
        files = [{"path": f.path, "bytes": f.nbytes, "tensors": len(f.tensors)} for f in chosen]
        shown: dict[str, Any] = {"files": files, "bytes": nbytes, "notes": conversion.notes}
        if conversion.training_flags:
            shown["training_flags"] = conversion.training_flags
        typer.echo(json.dumps(shown, indent=2))
        return
    for file in chosen:
        typer.echo(f"{file.path}  {_counted(len(file.tensors), 'tensor')}, {file.nbytes:,} bytes")
    typer.echo(f"would write {_counted(len(chosen), 'file')}, {nbytes:,} bytes; every byte is accounted for")
    for note in conversion.notes:
        typer.echo(f"note: {note}")
    if conversion.training_flags:
        typer.echo(f"to be passed to the training script: {conversion.training_flags}")


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def list_plugins(*, as_json: bool) -> None:
    """Print every plugin that was found."""
    registry = load_registry()
    if as_json:
        typer.echo(json.dumps([asdict(plugin) for plugin in registry.plugins], indent=2))
        return
    if not registry.plugins:
        typer.echo("no plugins are installed; each family of models has one, named mscvt-FAMILY")
    for plugin in registry.plugins:
        served = ", ".join(plugin.model_types)
        typer.echo(f"{plugin.distribution} {plugin.version}: {served or plugin.entry_point}")
        if plugin.error:
            typer.echo(f"  error: {plugin.error}")


def run_verify(given: Mapping[str, Any]) -> None:
    """Compare two checkpoints, and say what differs."""
    from mscvt.jobs.verify import verify_checkpoints

    with (
        _interruptible("nothing was changed"),
        show_progress(wanted=not given["json"]) as (started, progress),
    ):
        report = verify_checkpoints(
            hf=given["hf"],
            mg=given["mg"],
            registry=load_registry(),
            model_type=given["model_type_hf"],
            iteration=given["iteration"],
            dtype=given["dtype"],
            dequantize=given["dequantize"],
            workers=given["workers"],
            max_memory=given["max_memory"],
            started=started,
            progress=progress,
        )
    if given["json"]:
        typer.echo(json.dumps(asdict(report), indent=2))
    else:
        for difference in report.differences:
            typer.echo(f"differs: {difference}")
        count = len(report.differences)
        verdict = "equal" if report.is_equal else f"NOT equal: {_counted(count, 'differing tensor')}"
        typer.echo(f"{verdict}; compared {report.tensors} tensors, {report.nbytes:,} bytes in {report.seconds:.1f} s")
        for note in report.notes:
            typer.echo(f"note: {note}")
    if not report.is_equal:
        raise typer.Exit(1)
