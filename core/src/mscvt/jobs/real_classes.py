"""What transformers has for a model whose plugin is written: its classes, and what they make of a configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_ARCHITECTURE = re.compile(r"[A-Za-z]\w*")
RealNames = tuple[str, str]
"""The names of a configuration's and of a model's class."""


def real_classes(config: Mapping[str, Any]) -> RealNames | None:
    """The classes of the model that a `config.json` is of, where transformers has them."""
    said = config.get("architectures")
    architecture = said[0] if isinstance(said, list) and said else None
    if not isinstance(architecture, str) or not _ARCHITECTURE.fullmatch(architecture):
        return None
    try:
        import transformers

        model = getattr(transformers, architecture, None)
        configuration = getattr(model, "config_class", None)
        if configuration is None or configuration.model_type != config.get("model_type"):
            return None
    except (ImportError, RuntimeError):  # it is not there, or can't load the model's module
        return None
    found: str = configuration.__name__
    return (found, architecture) if hasattr(transformers, found) else None


def usual_configuration(real: RealNames | None) -> Mapping[str, Any]:
    """What a configuration says for which nothing was said; empty where there is no class, or it wants to be told."""
    if real is None:
        return {}
    import transformers

    try:
        with _quiet():
            usual: Mapping[str, Any] = getattr(transformers, real[0])().to_dict()
    except Exception:  # a class may refuse anything
        return {}
    return usual


def takes_heads(real: RealNames, config: Mapping[str, Any]) -> bool:
    """Whether the class makes heads as large as `head_dim` says; the model is made without memory for its weights."""
    import torch
    import transformers

    rows = config["num_attention_heads"] * config["head_dim"]
    given = {name: value for name, value in config.items() if name not in ("model_type", "dtype")}
    try:
        with _quiet(), torch.device("meta"):
            model = getattr(transformers, real[1])(getattr(transformers, real[0])(**given))
    except Exception:  # a class may refuse anything
        return False
    return any(rows in tensor.shape for tensor in model.state_dict().values())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' warnings, which are of no model that anybody has."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
