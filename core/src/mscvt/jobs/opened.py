"""Opening what a request names, with the model that it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mscvt.errors import MscvtError
from mscvt.formats.huggingface.config import CONFIG, read_config
from mscvt.jobs.models import Model, check_options, model_from_config
from mscvt.jobs.recorded_models import model_from_args
from mscvt.jobs.request import Request
from mscvt.jobs.sources import open_megatron, open_tensors
from mscvt.model.hyperparameters import lookup, model_fields
from mscvt.plugins.registry import Registry
from mscvt.records import dataclass

if TYPE_CHECKING:
    from mscvt.jobs.adapters import FittedAdapter
    from mscvt.jobs.sources import MegatronCheckpoint


def open_checkpoint(request: Request, registry: Registry) -> tuple[MegatronCheckpoint, Model, Mapping[str, Any] | None]:
    """The checkpoint of `--load-dir` with its ranks opened, its model, and the `config.json` of `--hf-cfg-dir`.

    Raises:
        MscvtError: Where it can't be read, or contradicts what was asked for.
    """
    check_options(request.options)
    source = open_megatron(request.load_dir, request.iteration)
    config = read_config(request.hf_cfg_dir) if request.hf_cfg_dir else None
    model = model_from_args(source, config, request, registry)
    open_tensors(source, model)
    return source, model, config


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model of Hugging Face, in the layout that it is wanted in."""

    config: Mapping[str, Any]
    model: Model
    adapter: FittedAdapter | None


def open_model(request: Request, registry: Registry) -> Wanted:
    """The model of `--load-dir`, and the adapter of `--lora-load`, which may have more words than the model.

    Raises:
        MscvtError: Where something is wrong with the options, the configuration or the adapter.
    """
    config = read_config(request.load_dir)
    family = registry.family(request.model_type) if request.model_type else registry.recognise(config)
    where = request.load_dir / CONFIG
    model = model_from_config(family, config, request.options, where, given=request.given)
    lora = request.lora
    if lora.lora_load is None:
        if lora.is_asked:
            raise MscvtError(
                "options of LoRA are given, and no --lora-load that says where the adapter is",
                hint="Give --lora-load, or leave them out.",
            )
        return Wanted(config, model, None)
    from mscvt.formats.peft.reader import Adapter
    from mscvt.jobs.adapters import fit_adapter

    adapter = Adapter(lora.lora_load)
    fitted = fit_adapter(adapter, model.description, family.model_type.spellings, lora)
    words = fitted.words(model.description)
    if words is None or words == model.h["vocab_size"]:
        return Wanted(config, model, fitted)
    paths = model_fields(family.model_type)["vocab_size"].paths
    path = next(path for path in paths if lookup(config, (path,)) is not None)
    model = model_from_config(family, _with_value(config, path, words), request.options, where, given=request.given)
    return Wanted(config, model, fit_adapter(adapter, model.description, family.model_type.spellings, lora))


def _with_value(config: Mapping[str, Any], path: str, value: int) -> dict[str, Any]:
    first, _, rest = path.partition(".")
    return {**config, first: _with_value(config[first], rest, value) if rest else value}
