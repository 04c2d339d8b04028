"""The model of a Hugging Face folder on one rank, as what is in the folder is compared with it."""

from __future__ import annotations

from pathlib import Path

from mscvt.dialects.options import Options
from mscvt.formats.huggingface.config import CONFIG, read_config
from mscvt.jobs.models import Model, model_from_config
from mscvt.model.hyperparameters import hyperparameters
from mscvt.plugins.family import Family


def whole_model(family: Family, folder: Path, *, with_mtp: bool = True) -> Model:
    """The model with all of its MTP layers or none, on one rank."""
    config = read_config(folder)
    h = hyperparameters(family.respelled(config), family.model_type, folder / CONFIG)
    mtp = sum(layer.mtp is not None for layer in family.layers(h)) if with_mtp else 0
    return model_from_config(family, config, Options(mtp_num_layers=mtp or None), folder / CONFIG)
