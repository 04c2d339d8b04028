"""Configuration and tokenizer beside converted weights, so that the result opens in transformers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mscvt.formats.files import file_inside
from mscvt.formats.huggingface.config import CONFIG
from mscvt.model.family import Hyperparameters, ModelType
from mscvt.model.fields import COUNTS, WORDS, Field
from mscvt.model.hyperparameters import lookup, model_fields

_ENDINGS = frozenset({".json", ".txt", ".model", ".jinja", ".py", ".tiktoken"})
_NOT_COPIED = (
    ".*",
    "*.index.json",
    "adapter_config.json",  # transformers takes a folder with one for an adapter of another model
    "hf_quant_config.json",
    "quantize_config.json",
    "quant_config.json",
    "trainer_state.json",
    "all_results.json",
    "*_results.json",
    "consolidated*.json",
    "params.json",
)
"""What is said of other weights or of another run."""
_LAYERS = ("num_layers", "first_k_dense_replace", "mtp_num_layers")
_TRAINED = ("rotary_base", "norm_epsilon", "tie_word_embeddings")
_QUANTIZATION = ("quantization_config", "compression_config", "expert_dtype")
_DTYPES = ("dtype", "torch_dtype")


def find_config_files(folder: Path) -> list[Path]:
    """Everything in a model's folder that is no weights: configuration, tokenizer, code.

    Raises:
        MscvtError: Where one of them can't be copied.
    """
    names = config_names(path.name for path in folder.iterdir() if not path.is_dir())
    return [file_inside(folder, name, "a configuration file") for name in names]


def config_names(names: Iterable[str]) -> list[str]:
    """Those of the names that are of configuration, tokenizer and code, sorted."""
    wanted = [name for name in names if Path(name).suffix in _ENDINGS]
    return sorted(name for name in wanted if not any(fnmatchcase(name, pattern) for pattern in _NOT_COPIED))


def copy_config_files(
    files: Sequence[Path], target: Path, config: Mapping[str, Any], adapted: Mapping[str, Any]
) -> None:
    """Copy everything that is no weights, and have `config.json` say what the weights are.

    Args:
        files: What `find_config_files` found beside the original model.
        target: Where the weights were written.
        config: The parsed `config.json` of the original model.
        adapted: What `adapt_config` made of it.
    """
    import shutil

    for path in files:
        shutil.copyfile(path, target / path.name)
    if adapted != config:
        (target / CONFIG).write_text(json.dumps(adapted, indent=2) + "\n", encoding="utf-8")


def adapt_config(
    config: Mapping[str, Any], h: Hyperparameters, model_type: ModelType, dtype: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The `config.json` of trained weights: what training changed, plain weights, their dtype.

    Args:
        config: That of the original model.
        h: The hyperparameters of the weights; what it lacks stays as it is.
        model_type: Says where `config.json` holds them.
        dtype: The dtype of the weights, as `torch` names it.

    Returns:
        The configuration, and a note on each change.
    """
    adapted: dict[str, Any] = json.loads(json.dumps(config))
    notes: list[str] = []
    fields = model_fields(model_type)
    for name in (*_LAYERS, *_TRAINED):
        if name in fields and name in h:
            notes += _set(adapted, fields[name], h[name])
    notes += _shorten_lists(config, adapted, h, model_type)
    for name in _QUANTIZATION:
        if adapted.pop(name, None) is not None:
            notes.append(f"config.json: {name} is left out, no weight is quantized any more")
    for name in _DTYPES:
        if name in adapted and adapted[name] != dtype:
            notes.append(_note(name, adapted[name], dtype))
            adapted[name] = dtype
    return adapted, tuple(notes)


def _set(config: dict[str, Any], field: Field, value: Any) -> list[str]:
    """Change a field wherever a configuration holds it; returns a note on each place that held something else."""
    held = [path for path in field.paths if lookup(config, (path,)) is not None]
    if not held:
        default = None if field.default is ... else field.default
        if value == default or (default is None and not value):
            return []
        held = [field.paths[0]]
    notes = []
    for path in held:
        before = lookup(config, (path,))
        if before == value:
            continue
        *outer, last = path.split(".")
        where = config
        for key in outer:
            where = where.setdefault(key, {})
        where[last] = float(value) if isinstance(before, float) else value
        notes.append(_note(path, before, where[last]))
    return notes


def _note(path: str, before: Any, after: Any) -> str:
    said = "not there" if before is None else json.dumps(before)
    return f"config.json: {path} is {json.dumps(after)}, as the checkpoint has it; it was {said}"


def _shorten_lists(
    config: Mapping[str, Any], adapted: dict[str, Any], h: Hyperparameters, model_type: ModelType
) -> list[str]:
    """Keep, in lists with an entry for each decoder layer, those of the layers that were kept.

    These are the first ones, of the dense and of the other layers each; transformers refuses lists of another length.
    """
    fields, spelled = model_fields(model_type), model_type.respell(config)
    before, after = lookup(spelled, fields["num_layers"].paths), h.get("num_layers")
    if not isinstance(before, int) or not isinstance(after, int) or after >= before:
        return []
    dense_before, dense = 0, 0
    if "first_k_dense_replace" in fields:
        dense_before = lookup(spelled, fields["first_k_dense_replace"].paths) or 0
        dense = min(h.get("first_k_dense_replace", dense_before), after)
    kept = [*range(dense), *range(dense_before, dense_before + after - dense)]
    known = {path for field in fields.values() if field.kind in (COUNTS, WORDS) for path in field.paths}
    notes = []
    for name, entries in config.items():
        is_by_layer = isinstance(entries, list) and len(entries) == before and (name in known or "layer" in name)
        if is_by_layer and max(kept) < before:
            adapted[name] = [entries[layer] for layer in kept]
            notes.append(f"config.json: {name} has {after} entries, for the layers that were kept; it had {before}")
    return notes
