"""Names inside an adapter of PEFT."""

from __future__ import annotations

MERGE = "Merge it with PEFT (merge_and_unload), and convert the merged model."
"""What to do with an adapter that is more than plain LoRA."""
WEIGHTS, WEIGHTS_BIN, CONFIG = "adapter_model.safetensors", "adapter_model.bin", "adapter_config.json"
PREFIX = "base_model.model."
"""What stands before the names of the model's modules."""
A, B = ".lora_A.weight", ".lora_B.weight"


def module_of(weight: str) -> str:
    """The module of a model's weight."""
    return weight.removesuffix(".weight")


def factor_names(weight: str) -> tuple[str, str]:
    """The names of the A and the B of a model's weight."""
    return f"{PREFIX}{module_of(weight)}{A}", f"{PREFIX}{module_of(weight)}{B}"
