"""Which weights of a checkpoint are quantized, and the source that shows them decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mscvt.errors import Faults, MscvtError
from mscvt.tensors.info import FLOATS, TORCH_NAMES, TensorInfo
from mscvt.tensors.quantized.bitsandbytes import find_bitsandbytes
from mscvt.tensors.quantized.block_fp8 import BLOCK
from mscvt.tensors.quantized.block_scaled import find_block_scaled
from mscvt.tensors.quantized.int8 import find_int8
from mscvt.tensors.quantized.weight import QuantizedWeight
from mscvt.tensors.sources import NotedSource, SourceTensor

METHODS = ("fp8", "bitsandbytes")
"""Values of `quant_method` that can be decoded."""

FOREIGN: Mapping[str, str] = MappingProxyType(
    {
        ".qweight": "GPTQ or AWQ",
        ".qzeros": "GPTQ or AWQ",
        ".g_idx": "GPTQ",
        ".weight_packed": "compressed-tensors",
        ".weight_scale": "compressed-tensors, ModelOpt (NVFP4, FP8) or FBGEMM",
        ".weight_scale_2": "ModelOpt (NVFP4)",
        "_proj_blocks": "MXFP4 with blocks of its own",
    }
)
"""How names end in releases that other tools quantized -> who does that."""
_WHOLE_NUMBERS = frozenset({"I8", "U8"})
"""Dtypes of weights that mean nothing by themselves."""
_DECODE_ELSEWHERE = (
    "Take the model's bf16 release, or decode it with the tool that quantized it (transformers: "
    "model.dequantize()) and convert what that saves."
)


class DequantizedSource:
    """A source whose quantized weights are shown as what they mean.

    Attributes:
        files: Those of the source.
        tensors: Its tensors, with decoded dtypes and shapes and without scales.
        notes: Its notes.
    """

    def __init__(self, source: NotedSource, weights: Mapping[str, QuantizedWeight]) -> None:
        """Wrap a source; the weights are those found in it."""
        self._source, self._weights = source, weights
        hidden = {name for weight in weights.values() for name in weight.companions}
        self.files: Sequence[Path] = source.files
        self.notes: tuple[str, ...] = source.notes
        self.tensors: Mapping[str, TensorInfo] = {
            name: weights[name].info if name in weights else info
            for name, info in source.tensors.items()
            if name not in hidden
        }

    def tensor(self, name: str) -> SourceTensor:
        """The elements of a tensor, decoded where they are read."""
        weight = self._weights.get(name)
        return self._source.tensor(name) if weight is None else weight.open(self._source)

    def close(self) -> None:
        """Let go of the original's files."""
        self._source.close()


def dequantized(source: NotedSource, config: Mapping[str, Any]) -> DequantizedSource:
    """Show the quantized weights of a checkpoint decoded.

    Args:
        source: The checkpoint.
        config: The parsed `config.json`; its `quantization_config` says how they are quantized, if anything does.

    Raises:
        MscvtError: Where nothing is quantized, it is quantized in a way that can't be decoded, or scales and
            weights don't fit each other.
    """
    weights = find_quantized(source, config)
    if not weights:
        raise MscvtError(
            f"{_where(source)}: no weight is quantized, there is nothing to decode", hint="Leave out --dequantize."
        )
    return DequantizedSource(source, weights)


def refuse_quantized(source: NotedSource, config: Mapping[str, Any]) -> None:
    """See to it that weights which are to be taken as they are mean what they say.

    Raises:
        MscvtError: Where any weight is quantized.
    """
    weights = find_quantized(source, config)
    if weights:
        kinds = sorted({weight.kind for weight in weights.values()})
        raise MscvtError(
            f"{_where(source)}: {len(weights)} weights are {' or '.join(kinds)} with scales of their own, "
            f"for example {min(weights)!r}",
            hint="--dequantize decodes them on the way.",
        )


def find_quantized(source: NotedSource, config: Mapping[str, Any]) -> dict[str, QuantizedWeight]:
    """Every quantized weight of a checkpoint by its name.

    Raises:
        MscvtError: As `dequantized`, but for nothing being quantized.
    """
    where = _where(source)
    method, block = _method(where, config.get("quantization_config"))
    endings = tuple(FOREIGN)
    suspects = [name for name in source.tensors if name.endswith(endings)]
    foreign = {name: who for name in suspects for end, who in FOREIGN.items() if name.endswith(end)}
    if foreign:
        raise MscvtError(
            f"{where}: {len(foreign)} tensors, for example {min(foreign)!r}, are of a quantization that can't be "
            f"decoded: {foreign[min(foreign)]}",
            hint=_DECODE_ELSEWHERE,
        )
    faults = Faults()
    found: dict[str, QuantizedWeight] = {}
    if method in (None, "fp8"):
        found |= find_block_scaled(source, block, faults)
    if method in (None, "bitsandbytes"):
        found |= find_bitsandbytes(source, faults)
        found |= find_int8(source, _dtype(config), faults)
    if not faults:
        for name in sorted(source.tensors.keys() - found.keys()):
            if name.endswith(".weight") and (dtype := source.tensors[name].dtype) in _WHOLE_NUMBERS:
                faults.add(f"{name}: {dtype}, and nothing beside it to decode it with", hint=_DECODE_ELSEWHERE)
    faults.raise_if_any(f"{where}: scales and weights don't fit each other")
    return found


def _where(source: NotedSource) -> Path:
    return source.files[0].parent


def _dtype(config: Mapping[str, Any]) -> str | None:
    """The dtype that a model is said to have, by safetensors' name."""
    said = config.get("dtype") or config.get("torch_dtype")
    return next((ours for ours, name in TORCH_NAMES.items() if name == said and ours in FLOATS), None)


def _method(where: Path, said: Mapping[str, Any] | None) -> tuple[str | None, tuple[int, int]]:
    """The method that a `quantization_config` names, None where there is none, and the size of FP8 blocks."""
    if said is None:
        return None, BLOCK
    method = said.get("quant_method") if isinstance(said, Mapping) else None
    if method not in METHODS:
        what = f"quant_method {method!r}"[:100] if isinstance(said, Mapping) else "no object"
        raise MscvtError(
            f"{where}: config.json's quantization_config says {what}; decoded can be {', '.join(METHODS)}",
            hint=f"{_DECODE_ELSEWHERE} Where the weights are decoded already, remove quantization_config.",
        )
    size = said.get("weight_block_size") or list(BLOCK)
    if not isinstance(size, list) or len(size) != 2 or not all(type(n) is int and 0 < n < 2**31 for n in size):
        raise MscvtError(f"{where}: config.json's weight_block_size is {size!r}"[:300] + ", expected two whole numbers")
    if said.get("fmt") not in (None, "e4m3"):
        raise MscvtError(
            f"{where}: config.json's quantization_config says fmt {said['fmt']!r}"[:300], hint=_DECODE_ELSEWHERE
        )
    return method, (size[0], size[1])
