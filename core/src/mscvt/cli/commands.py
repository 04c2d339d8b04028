"""What the commands do, once their words are read. Imported only when a command runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from types import MappingProxyType

from mscvt.cli import folder_commands, results
from mscvt.cli.folders import HF, MG, check_folder, check_kind
from mscvt.cli.inspecting import run_inspect
from mscvt.cli.original import without_single_ranks
from mscvt.cli.plugin_tables import NewPlugin, Prepared
from mscvt.cli.report import FAILED
from mscvt.cli.running import chosen_executor, chosen_model_type, interruptible, watched
from mscvt.cli.tables import (
    Compared,
    Direction,
    Folders,
    Model,
    Output,
    Planned,
    Resources,
    Values,
    Writing,
)
from mscvt.cli.training import script_notes
from mscvt.cli.words import Given
from mscvt.dialects.options import Options, Sizes
from mscvt.dialects.registry import load_registry
from mscvt.model.lora import Lora
from mscvt.plugins.registry import without_entry_points


def run_hf2mg(given: Given) -> None:
    """Convert to Megatron, and say what was done."""
    _convert(HF, MG, given)


def run_mg2hf(given: Given) -> None:
    """Convert to Hugging Face, and say what was done."""
    values, notes = without_single_ranks(given.values)
    _convert(MG, HF, replace(given, values=values, notes=(*given.notes, *notes)))


def run_mg2mg(given: Given) -> None:
    """Change the parallel layout, and say what was done."""
    _convert(MG, MG, given)


def run_convert(given: Given) -> None:
    """Convert in the direction that the command line says."""
    run = run_hf2mg if given.read(Direction).save_model_type == MG else run_mg2hf
    run(given)


def run_plan(given: Given) -> None:
    """Show what a conversion would do."""
    {"hf2mg": run_hf2mg, "mg2hf": run_mg2hf, "mg2mg": run_mg2mg}[given.read(Planned).direction](given)


def _convert(load_kind: str, save_kind: str, given: Given) -> None:
    from mscvt.jobs.prepare import prepare_reshard, prepare_to_huggingface, prepare_to_megatron
    from mscvt.jobs.request import Request
    from mscvt.plan.selection import select_files

    folders, model, values = given.read(Folders), given.read(Model), given.read(Values)
    writing, resources, output = given.read(Writing), given.read(Resources), given.read(Output)
    planned = given.read(Planned)
    read = (folders.load_dir, *([model.hf_cfg_dir] if model.hf_cfg_dir else []))
    for flag, folder in zip(("--load-dir", "--hf-cfg-dir"), read, strict=False):
        check_folder(flag, folder)
    other_way = f"mscvt {HF if load_kind == MG else MG}2{save_kind} converts from the other kind."
    if load_kind != save_kind:
        other_way = f"mscvt {save_kind}2{load_kind} converts in the other direction."
    check_kind("--load-dir", folders.load_dir, load_kind, other_way)
    if load_kind == HF and (recipe := given.read(Prepared).recipe):
        from mscvt.cli.recipe_commands import check_recipe

        check_recipe(recipe, folders.load_dir)
    registry = load_registry()
    request = Request(
        load_dir=folders.load_dir,
        options=given.asked(Options),
        model_type=chosen_model_type(model, registry),
        dtype=values.dtype,
        dequantize=values.dequantize,
        hf_cfg_dir=model.hf_cfg_dir,
        iteration=model.iteration,
        replicas=values.replicas,
        removed=given.removed,
        lora=given.asked(Lora),
        given={name: value for name, value in asdict(given.asked(Sizes)).items() if value is not None},
    )
    prepare = {(HF, MG): prepare_to_megatron, (MG, HF): prepare_to_huggingface, (MG, MG): prepare_reshard}[
        load_kind, save_kind
    ]
    with (
        interruptible("nothing was begun; the same command goes on with what earlier runs left"),
        watched(given, "planning") as (started, progress),
    ):
        conversion = prepare(request, registry)
        chosen = select_files(conversion.plan.files, writing.only)
        result = preview = None
        if writing.dry_run or planned.direction:
            from mscvt.jobs.preview import look_ahead, write_page

            preview = look_ahead(conversion, folders.save_dir, chosen, rank=planned.rank, tensor=planned.tensor)
            if planned.html:
                write_page(planned.html, conversion, preview, planned.tensor)
        else:
            from mscvt.jobs.conversion import Settings, run_conversion
            from mscvt.jobs.parts import convert_in_parts

            settings = Settings(
                workers=resources.workers,
                max_memory=resources.max_memory,
                overwrite=writing.overwrite,
                resume=writing.resume,
                only=writing.only,
                verify=writing.verify,
                started=started,
                progress=progress,
            )
            with chosen_executor(given) as executor:
                result = (
                    run_conversion(conversion, folders.save_dir, settings)
                    if executor is None
                    else convert_in_parts(conversion, prepare, request, folders.save_dir, settings, executor)
                )
    notes = (*given.notes, *conversion.notes, *script_notes(given, conversion))
    if output.json:
        shown = results.plan_object(conversion, folders.save_dir, chosen, notes)
        done = results.result_object(result) if result else {}
        ahead = {}
        if preview:
            from mscvt.views.preview import preview_object

            ahead = preview_object(preview)
        results.print_json(given.command.name, {**shown, "is_dry_run": result is None, **ahead, **done})
    elif result:
        results.print_result(conversion, result, notes, _proof(load_kind, save_kind, given))
    elif preview:
        from mscvt.cli import plans

        plans.print_plan(conversion, given, preview, notes)


def _proof(load_kind: str, save_kind: str, given: Given) -> list[str]:
    """The command that compares source and result; empty where `verify` can't."""
    folders, values = given.read(Folders), given.read(Values)
    if load_kind == save_kind or any(asdict(given.asked(Lora)).values()):
        return []
    sides = [("--hf", folders.load_dir), ("--mg", folders.save_dir)]
    if save_kind == HF:
        if given.read(Model).hf_cfg_dir is None:
            return []
        sides = [("--hf", folders.save_dir), ("--mg", folders.load_dir)]
    words = ["mscvt", "verify", *(str(word) for side in sides for word in side)]
    words += ["--dtype", values.dtype] if values.dtype else []
    words += ["--dequantize"] if values.dequantize else []
    model_type = given.read(Model).model_type_hf
    return [*words, *(["--model-type-hf", model_type] if model_type else [])]


def run_verify(given: Given) -> None:
    """Compare two checkpoints, and say what differs."""
    from mscvt.jobs.verify import verify_checkpoints

    compared, model, values = given.read(Compared), given.read(Model), given.read(Values)
    resources, output = given.read(Resources), given.read(Output)
    swapped = "Are --hf and --mg exchanged?"
    for flag, folder, kind in (("--hf", compared.hf, HF), ("--mg", compared.mg, MG)):
        check_folder(flag, folder)
        check_kind(flag, folder, kind, swapped)
    registry = load_registry()
    with (
        interruptible("nothing was changed"),
        watched(given, "planning") as (started, progress),
        chosen_executor(given) as executor,
    ):
        report = verify_checkpoints(
            hf=compared.hf,
            mg=compared.mg,
            registry=registry,
            model_type=chosen_model_type(model, registry),
            iteration=model.iteration,
            dtype=values.dtype,
            dequantize=values.dequantize,
            workers=resources.workers,
            max_memory=resources.max_memory,
            started=started,
            progress=progress,
            executor=executor,
        )
    notes = (*given.notes, *report.notes)
    if output.json:
        results.print_json(given.command.name, results.report_object(report, notes))
    else:
        results.print_report(report, notes)
    if not report.is_equal:
        sys.exit(FAILED)


def run_recipes(given: Given) -> None:
    """List all recipes, or show one."""
    from mscvt.cli.recipe_commands import print_recipes

    print_recipes(given)


def run_names(given: Given) -> None:
    """Show the names of a checkpoint."""
    from mscvt.jobs.names import look_at_names

    folder = given.read(Folders).load_dir
    registry = load_registry()
    names = look_at_names(folder, registry, chosen_model_type(given.read(Model), registry))
    if given.read(Output).json:
        results.print_json(given.command.name, results.names_object(names, given.notes))
    else:
        results.print_names(names, given.notes)


def run_new_plugin(given: Given) -> None:
    """Write a plugin, and say what it is and what it lacks."""
    from mscvt.jobs.new_plugin import write_plugin

    asked = given.read(NewPlugin)
    written = write_plugin(asked.name, load_registry(), source=asked.from_dir, target=asked.to_dir)
    if given.read(Output).json:
        results.print_json(given.command.name, results.new_plugin_object(written))
    else:
        results.print_new_plugin(written)


def run_plugins(given: Given) -> None:
    """Say which plugins were found."""
    plugins = load_registry().plugins
    plugins += tuple(without_entry_points(plugins))
    if given.read(Output).json:
        results.print_json(given.command.name, results.plugins_object(plugins))
    else:
        results.print_plugins(plugins)


RUNS: Mapping[str, Callable[[Given], None]] = MappingProxyType(
    {
        "hf2mg": run_hf2mg,
        "mg2hf": run_mg2hf,
        "mg2mg": run_mg2mg,
        "convert": run_convert,
        "plan": run_plan,
        "verify": run_verify,
        "download": folder_commands.run_download,
        "check": folder_commands.run_check,
        "status": folder_commands.run_status,
        "discard": folder_commands.run_discard,
        "inspect": run_inspect,
        "recipes": run_recipes,
        "names": run_names,
        "new-plugin": run_new_plugin,
        "plugins": run_plugins,
    }
)
"""Command -> what it does."""
