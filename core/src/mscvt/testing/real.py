"""Small models of transformers' own classes, as the yardstick of a family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

Real = tuple[type[Any], type[Any]]
"""A model's configuration class and its class for causal language modeling."""


def save_real(real: Real, config: Mapping[str, Any], folder: Path, *, seed: int = 0) -> Any:
    """Make a float32 model with random weights, norms and biases too, save it, and return it."""
    config_class, model_class = real
    torch.manual_seed(seed)
    model = model_class(config_class(**config)).to(torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms are made of ones and biases of zeros, which would hide a swap
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    model.save_pretrained(folder)
    return model


def logits_of(real: Real, folder: Path, vocab: int) -> torch.Tensor:
    """The logits `[2, 12, vocab]` of a saved model for fixed tokens."""
    # the fast kernels for experts want aligned sizes, which small models don't have
    model = real[1].from_pretrained(folder, dtype=torch.float32, experts_implementation="eager").eval()
    tokens = torch.arange(24).reshape(2, 12) % vocab
    with torch.no_grad():
        logits: torch.Tensor = model(tokens).logits
    return logits
