"""Configuration and tokenizer beside converted weights, so that the result opens in transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mscvt.formats.files import file_inside
from mscvt.model.family import Hyperparameters, ModelType
from mscvt.model.hyperparameters import CONFIG, hyperparameters, lookup, model_fields

_ENDINGS = frozenset({".json", ".txt", ".model", ".jinja", ".py", ".tiktoken"})
_ADAPTED = ("num_layers", "first_k_dense_replace", "mtp_num_layers")
"""What reduced layers change."""


def find_config_files(folder: Path) -> list[Path]:
    """Everything in a model's folder that is no weights: configuration, tokenizer, code.

    Raises:
        MscvtError: Where one of them is a link out of the folder.
    """
    names = sorted(path.name for path in folder.iterdir() if path.suffix in _ENDINGS and not path.is_dir())
    return [file_inside(folder, name, "a configuration file") for name in names if not name.endswith(".index.json")]


def copy_config_files(
    files: Sequence[Path],
    target: Path,
    config: Mapping[str, Any],
    h: Hyperparameters,
    model_type: ModelType,
    dtype: str,
) -> None:
    """Copy everything that is no weights, and make `config.json` say what the weights are.

    Args:
        files: What `find_config_files` found beside the original model.
        target: Where the weights were written.
        config: Their parsed `config.json`.
        h: The sizes of the weights.
        model_type: Says where `config.json` holds them.
        dtype: The dtype of the weights, as `torch` names it.
    """
    for path in files:
        shutil.copyfile(path, target / path.name)
    adapted = adapt_config(config, h, model_type, dtype)
    if adapted != config:
        (target / CONFIG).write_text(json.dumps(adapted, indent=2) + "\n", encoding="utf-8")


def adapt_config(config: Mapping[str, Any], h: Hyperparameters, model_type: ModelType, dtype: str) -> dict[str, Any]:
    """A `config.json` for the weights: fewer layers where they were reduced, no quantization, the dtype."""
    adapted = _with_layers_kept(config, h, model_type)
    adapted.pop("quantization_config", None)  # weights that were decoded are written as they are
    fields = model_fields(model_type)
    for name in _ADAPTED:
        if name in fields and name in h:
            for path in fields[name].paths:
                if lookup(config, (path,)) not in (None, h[name]) and "." not in path:
                    adapted[path] = h[name]
    for name in ("dtype", "torch_dtype"):
        if name in adapted:
            adapted[name] = dtype
    return adapted


def _with_layers_kept(config: Mapping[str, Any], h: Hyperparameters, model_type: ModelType) -> dict[str, Any]:
    """A configuration whose lists with an entry for each decoder layer have those of the layers that are kept."""
    whole = hyperparameters(model_type.respell(config), model_type, CONFIG)
    size, dense = whole["num_layers"], h.get("first_k_dense_replace", 0)
    gap = whole.get("first_k_dense_replace", 0) - dense
    if h["num_layers"] == size:
        return dict(config)
    kept = [i if i < dense else i + gap for i in range(h["num_layers"])]
    return {
        name: [value[i] for i in kept] if isinstance(value, list) and len(value) == size else value
        for name, value in config.items()
    }
