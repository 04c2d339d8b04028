"""A small random model of a family's own class in transformers: its configuration, tensors and logits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mscvt.records import dataclass

TOLERANCE = 1e-4
"""How far logits may be apart, as a share of the largest; float32 needs about 1e-6, a wrong tensor makes 1e-2."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What the class saves and what it computes."""

    config: Mapping[str, Any]
    """The `config.json` that it saves."""
    tensors: Mapping[str, Tensor]
    """Name -> tensor, as it saves them."""
    tokens: Tensor
    """`[batch, sequence]`."""
    logits: Tensor
    """`[batch, sequence, vocab]`."""


Real = tuple[type[Any], type[Any]]
"""A model's configuration class and its class for causal language modeling."""


def random_reference(config: Mapping[str, Any], folder: Path, seed: int = 0, *, real: Real | None = None) -> Reference:
    """Make the model that a configuration asks for, with random weights, norms and biases in float32.

    Args:
        config: With a `model_type` that transformers has a class for.
        folder: Where the model is saved; it must not hold another one.
        seed: For weights and tokens.
        real: The model's classes; by default those that transformers has for the `model_type`.
    """
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    # A copy: some classes write their defaults into the dictionaries that they are given.
    given = {name: deepcopy(value) for name, value in config.items() if name != "model_type"}
    config_class = CONFIG_MAPPING[config["model_type"]] if real is None else real[0]
    make: Any = AutoModelForCausalLM.from_config if real is None else real[1]._from_config
    # Eager experts: the grouped kernel takes no sizes that are not a multiple of four.
    kernels = {"attn_implementation": "eager", "experts_implementation": "eager"}
    model = make(config_class(**given), dtype=torch.float32, **kernels).eval()
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(config["vocab_size"], (2, 9), generator=generator)
    for name, tensor in model.state_dict().items():
        if tensor.ndim > 1:
            tensor.normal_(0, 1.5 * tensor.shape[-1] ** -0.5, generator=generator)
        elif name.endswith("bias"):
            tensor.normal_(0, 0.5, generator=generator)
        else:
            tensor.normal_(1, 0.3, generator=generator)
    with torch.no_grad():
        logits = model(tokens).logits
    model.save_pretrained(folder)
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= {name: tensor.clone() for name, tensor in load_file(path).items()}  # aligned, and no part of a file
    saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return Reference(saved, tensors, tokens, logits)


def disagreement(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two logits, as a share of the largest one expected; NaN where either has one."""
    return float((found - expected).abs().max() / expected.abs().max())


def logits_of(folder: Path, tokens: Tensor, real: Real) -> Tensor:
    """The logits `[batch, sequence, vocab]` of a saved model."""
    kernels = {"attn_implementation": "eager", "experts_implementation": "eager"}
    model = real[1].from_pretrained(folder, dtype=torch.float32, **kernels).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()  # where a file's bytes aren't aligned, kernels round another way
    with torch.no_grad():
        logits: Tensor = model(tokens).logits
    return logits
