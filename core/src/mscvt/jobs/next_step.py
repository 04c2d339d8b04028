"""What to do with a model that has just been downloaded."""

from __future__ import annotations

from pathlib import Path

from mscvt.errors import MscvtError
from mscvt.formats.huggingface.config import read_config
from mscvt.formats.huggingface.folders import adapter_base
from mscvt.formats.peft import names as peft
from mscvt.output.download import Origin
from mscvt.plugins.registry import Registry


def conversion_of(folder: Path, origin: Origin, registry: Registry) -> list[str]:
    """The words of the command that converts what was downloaded.

    Args:
        folder: Where it is.
        origin: What it is.
        registry: The plugins.

    Raises:
        MscvtError: Where no plugin serves the model.
    """
    target = ["--save-dir", f"{folder}-mcore"]
    if peft.CONFIG in origin.files:
        base = adapter_base(folder).rpartition("/")[2]
        return ["mscvt", "hf2mg", "--load-dir", base, "--lora-load", str(folder), *target]
    config = read_config(folder)
    try:
        registry.recognise(config)
    except MscvtError as error:
        raise MscvtError(f"it can't be converted yet: {error.message}", hint=error.hint) from None
    quantized = ["--dequantize"] if config.get("quantization_config") else []
    return ["mscvt", "hf2mg", "--load-dir", str(folder), *target, *quantized]
