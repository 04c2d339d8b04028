"""From an adapter of PEFT to factors that training goes on with."""

from __future__ import annotations

from dataclasses import replace

from mscvt.description.factors import FactorBook
from mscvt.errors import MscvtError
from mscvt.formats.peft.names import factor_names
from mscvt.jobs.fused_factors import Fused, fuse
from mscvt.jobs.opened import open_model
from mscvt.jobs.plans import plan_to_megatron
from mscvt.jobs.prepared import Conversion
from mscvt.jobs.request import Request
from mscvt.jobs.shards_written import Recorded, to_shards
from mscvt.plugins.registry import Registry
from mscvt.tensors.info import TORCH_NAMES


def prepare_factors(request: Request, registry: Registry) -> Conversion:
    """Plan an adapter -> the factors of a Megatron checkpoint.

    Raises:
        MscvtError: Where anything at all is wrong with the options, the plugin or the adapter, or what it says has no
            form that training could load.
    """
    wanted = open_model(request, registry)
    model, adapter = wanted.model, wanted.adapter
    if adapter is None:
        raise MscvtError("--save-lora-to-mg needs an adapter", hint="Give its folder with --lora-load.")
    dialect = model.dialect.lora
    dialect.check(model.options)
    book = FactorBook(dialect.factor_keys, factor_names)
    fused = fuse(adapter, model.description, book, dialect)
    asked = request.lora.lora_target_modules
    if asked is not None and set(asked) != fused.targets:
        raise MscvtError(
            f"--lora-target-modules {' '.join(sorted(asked))} contradicts the adapter, which changes "
            f"{' '.join(sorted(fused.targets))}",
            hint="Leave out --lora-target-modules: the factors say it.",
        )
    kinds = {info.dtype for info in fused.source.tensors.values()}
    dtype = request.dtype_name or (kinds.pop() if len(kinds) == 1 else "F32")
    description = book.describe(model.description, fused.factored)
    plan = plan_to_megatron(description, fused.source.tensors, dtype=dtype)
    said = fused.rank, fused.alpha, fused.targets
    args = dialect.args(*said)
    weights = next((wanted.config[name] for name in ("dtype", "torch_dtype") if wanted.config.get(name)), None)
    if weights in TORCH_NAMES.values():
        args["params_dtype"] = weights
    return to_shards(
        "hf2mg",
        request,
        replace(model, description=description),
        plan,
        fused.source,
        wanted.config,
        (*model.notes, *adapter.notes, *_notes(fused)),
        Recorded(args=args, flags=" ".join(dialect.flags(*said)), load_flag="--lora-load"),
    )


def _notes(fused: Fused) -> tuple[str, ...]:
    said = f"LoRA: factors of {len(fused.factored)} Megatron weights, r {fused.rank}, alpha {fused.alpha}"
    if not fused.is_stacked:
        return (said,)
    return (
        said,
        f"LoRA: fused weights have the A of several tensors one after the other, so r is {fused.rank}; training goes "
        "on with all of it, and an adapter that is made of the result has this rank",
    )
