"""From factors that a training run saved to an adapter that PEFT loads."""

from __future__ import annotations

from pathlib import Path

from mscvt.errors import MscvtError
from mscvt.jobs.identity import folders_of, identity_of
from mscvt.jobs.opened import open_checkpoint
from mscvt.jobs.plans import plan_to_adapter
from mscvt.jobs.prepared import Conversion
from mscvt.jobs.request import Request
from mscvt.jobs.trained_factors import read_trained
from mscvt.plan.by_huggingface import uses_by_name
from mscvt.plugins.registry import Registry


def prepare_adapter(request: Request, registry: Registry) -> Conversion:
    """Plan the factors of a Megatron checkpoint -> an adapter.

    Raises:
        MscvtError: Where anything at all is wrong with the options, the plugin or the source.
    """
    from mscvt.formats.huggingface.writer import allocate, offsets_in
    from mscvt.formats.peft.names import CONFIG
    from mscvt.formats.peft.writer import adapter_config, write_config

    source, model, config = open_checkpoint(request, registry)
    trained = read_trained(request, model, source)
    if trained is None:
        raise MscvtError(f"{request.load_dir}: has no factors", hint="Leave out --save-lora-to-hf.")
    book, found = trained.book, trained.found
    zeros = book.zeros(found.description, found.ranks)
    description = book.describe(found.description, found.factored, zeros)
    factors = trained.factors()
    replicas = request.replicas == "equal"
    plan = plan_to_adapter(description, factors.tensors, dtype=request.dtype_name, replicas=replicas)
    shapes = {name: shape for file in plan.files for name, (_, shape) in file.tensors.items()}
    base = (config or {}).get("_name_or_path")
    ranks = {one.a: one.rank for one in found.factored}
    uses = {name: used[0].parameter for name, used in uses_by_name(description).items()}
    scales = {name: trained.alpha / ranks[a] for name, a in uses.items() if a in ranks}
    scales |= {name: scales[alias.of] for name, alias in description.aliases.items() if alias.of in scales}
    made, notes = adapter_config(shapes, scales, found.rank, trained.alpha, base if isinstance(base, str) else None)

    def finish(folder: Path) -> None:
        write_config(folder, made)

    return Conversion(
        plan=plan,
        source=factors,
        allocate=lambda path, file: allocate(path, file.tensors),
        offsets=lambda path, file: offsets_in(path),
        finish=finish,
        finishing=(CONFIG,),
        sources=folders_of(request),
        listed=lambda folder: (),
        identity=identity_of("mg2hf", request, model.family, factors.files, model.options, config),
        notes=(*model.notes, *trained.notes, *notes),
        source_layout=description,
    )
