"""bitsandbytes' 4-bit weights (NF4, FP4; single or nested scales): value = quant_map[code] * scale of its block.

Blocks run over the flat array, across rows; the high nibble comes first. Source: `QuantState` and
`dequantize_4bit` of bitsandbytes, whose generic path this equals. All is computed in f32 and rounded once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from mscvt.errors import Faults
from mscvt.records import dataclass
from mscvt.tensors.info import TORCH_NAMES, TensorInfo
from mscvt.tensors.quantized.matrix import Decode, DecodedMatrix, tiles
from mscvt.tensors.quantized.weight import whole
from mscvt.tensors.sources import Source, SourceTensor

if TYPE_CHECKING:
    import numpy as np
    import torch

STATE = ".quant_state.bitsandbytes__"
"""What the name of a weight's description ends with, before the kind: `nf4` or `fp4`."""
KINDS = frozenset({"nf4", "fp4"})
_STATE_LIMIT = 1 << 16
"""Bytes; a description has some two hundred."""
_DTYPES: Mapping[str, str] = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


@dataclass(frozen=True, slots=True)
class NestedScales:
    """Scales that are quantized themselves: quant_map[absmax] * nested_absmax of their block + offset."""

    blocksize: int
    offset: float


@dataclass(frozen=True, slots=True)
class BitsandbytesWeight:
    """A packed weight, its description and its tables."""

    name: str
    state: str
    """Name of the description."""
    blocksize: int
    """Elements that share a scale."""
    nested: NestedScales | None
    info: TensorInfo

    @property
    def kind(self) -> str:
        """What people call the format."""
        return self.state.rpartition("__")[2].upper()

    @property
    def companions(self) -> tuple[str, ...]:
        """The description, the code values and the scales."""
        nested = (".nested_absmax", ".nested_quant_map") if self.nested else ()
        return (self.state, *(self.name + ending for ending in (".absmax", ".quant_map", *nested)))

    def open(self, source: Source) -> SourceTensor:
        """The values in the dtype that the description names."""
        packed = whole(source, self.name).contiguous().view(-1)
        import torch

        packed, dtype = packed.view(torch.uint8), getattr(torch, TORCH_NAMES[self.info.dtype])
        absmax = whole(source, self.name + ".absmax")

        def scales(first: int, end: int) -> torch.Tensor:
            if self.nested is None:
                return absmax[first:end]
            step = self.nested.blocksize
            outer = whole(source, self.name + ".nested_absmax")[first // step : -(-end // step)]
            outer = outer.repeat_interleave(step)[first % step :][: end - first]
            inner = whole(source, self.name + ".nested_quant_map")[absmax[first:end].long()]
            return inner * outer + torch.tensor(self.nested.offset, dtype=torch.float32)

        pairs = _pairs(whole(source, self.name + ".quant_map"))
        flat = _Blocks(packed, pairs, self.blocksize, self.info.numel, scales, dtype)
        columns = self.info.shape[-1]
        by_rows = columns % self.blocksize == 0
        decode = flat.box_of_blocks(columns) if by_rows else flat.box_of_spans(columns)
        return DecodedMatrix(columns, decode, self.info.dtype)


def _pairs(values: torch.Tensor) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The two f32 values that each byte stands for, as one number of 64 bits."""
    import torch

    byte = torch.arange(256)
    table: np.ndarray[Any, np.dtype[np.int64]]
    table = torch.stack([values[byte >> 4], values[byte & 15]], dim=1).view(torch.int64).flatten().numpy()
    return table


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The flat array of a weight, of which whole blocks are decoded."""

    packed: torch.Tensor
    """Bytes, two codes each."""
    pairs: np.ndarray[Any, np.dtype[np.int64]]
    blocksize: int
    numel: int
    scales: Callable[[int, int], torch.Tensor]
    """Gives the scales of blocks `[first, end)` in f32."""
    dtype: torch.dtype

    def decode(self, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """Bytes of whole blocks `[..., bytes]` and their scales `[..., blocks]`, as f32 `[..., elements]`."""
        import numpy as np
        import torch

        pairs = np.take(self.pairs, codes.numpy(), mode="clip")  # a byte is never clipped; unchecked is faster
        values = torch.from_numpy(pairs).view(torch.float32).view(*scales.shape, self.blocksize)
        return values.mul_(scales[..., None]).flatten(-2)

    def box_of_blocks(self, columns: int) -> Decode:
        """What decodes boxes of a weight whose rows consist of whole blocks."""
        import torch

        size, per_row = self.blocksize, columns // self.blocksize
        packed = self.packed[: self.numel // 2].view(-1, columns // 2)

        def box(first: int, end: int, left: int, right: int) -> torch.Tensor:
            low, high = left // size, -(-right // size)
            decoded = torch.empty((end - first, right - left), dtype=self.dtype)
            for start, stop in tiles(first, end, (high - low) * size):
                scales = self.scales(start * per_row, stop * per_row).view(-1, per_row)[:, low:high]
                values = self.decode(packed[start:stop, low * size // 2 : high * size // 2], scales)
                decoded[start - first : stop - first] = values[:, left - low * size : right - low * size]
            return decoded

        return box

    def box_of_spans(self, columns: int) -> Decode:
        """What decodes boxes of any weight: whole rows at once, parts of rows one row after another."""
        import torch

        def box(first: int, end: int, left: int, right: int) -> torch.Tensor:
            decoded = torch.empty((end - first, right - left), dtype=self.dtype)
            if right - left == columns:
                for start, stop in tiles(first, end, columns):
                    span = self.span(start * columns, stop * columns)
                    decoded[start - first : stop - first] = span.view(-1, columns)
            else:
                for row in range(first, end):
                    decoded[row - first] = self.span(row * columns + left, row * columns + right)
            return decoded

        return box

    def span(self, first: int, end: int) -> torch.Tensor:
        """Elements `[first, end)` of the flat array in f32."""
        import torch

        size = self.blocksize
        low, high = first // size, -(-end // size)
        codes = self.packed[low * size // 2 : high * size // 2]
        missing = (high - low) * size // 2 - len(codes)  # the last block may be short
        if missing:
            codes = torch.cat([codes, codes.new_zeros(missing)])
        values = self.decode(codes, self.scales(low, high))
        return values[first - low * size : end - low * size]


def find_bitsandbytes(source: Source, faults: Faults) -> dict[str, BitsandbytesWeight]:
    """Every 4-bit weight by its name; whatever of one does not fit the rest is a fault."""
    found: dict[str, BitsandbytesWeight] = {}
    for state in sorted(name for name in source.tensors if STATE in name):
        name, _, kind = state.partition(STATE)
        if name not in source.tensors or kind not in KINDS:
            faults.add(f"{state}: {'is of an unknown kind' if name in source.tensors else 'there is no ' + name}")
            continue
        described = _read_state(source, state)
        weight = _weight(source, name, state, described)
        if isinstance(weight, str):
            faults.add(f"{name}: {weight}")
        else:
            found[name] = weight
    taken = {name for weight in found.values() for name in weight.companions}
    for name in sorted(name for name in source.tensors.keys() - taken if name.endswith((".absmax", ".quant_map"))):
        of = name.rpartition(".")[0]
        if of not in found and not faults:
            faults.add(f"{name}: there is no {of}{STATE}nf4 (or fp4) to decode it with")
    return found


def _read_state(source: Source, state: str) -> Any:
    """The description, or None where it is none."""
    info = source.tensors[state]
    if info.dtype != "U8" or not 0 < info.nbytes <= _STATE_LIMIT:
        return None
    try:
        return json.loads(source.tensor(state).region(0, (info.nbytes,), (1,)).tobytes().decode())
    except (ValueError, RecursionError):
        return None


def _weight(source: Source, name: str, state: str, described: Any) -> BitsandbytesWeight | str:
    """A weight, or what is wrong with it."""
    if not isinstance(described, dict):
        return f"{state} is no description of a quantized weight"
    dtype: Any = described.get("dtype")
    shape: Any = described.get("shape")
    blocksize: Any = described.get("blocksize")
    if (
        not isinstance(dtype, str)
        or dtype not in _DTYPES
        or not _are_sizes(shape)
        or not _is_size(blocksize)
        or blocksize % 2
    ):
        return f"{state} says dtype {dtype!r}, shape {shape!r}, blocksize {blocksize!r}"[:300]
    nested = None
    if "nested_blocksize" in described:
        step, offset = described["nested_blocksize"], described.get("nested_offset")
        if not _is_size(step) or not isinstance(offset, float) or described.get("nested_dtype") != "float32":
            return f"{state} says nested_blocksize {step!r}, nested_offset {offset!r}"[:300]
        nested = NestedScales(step, offset)
    packed = source.tensors[name]
    info = TensorInfo(_DTYPES[dtype], tuple(shape), packed.file, packed.offset)
    blocks = -(-info.numel // blocksize)
    expected: dict[str, tuple[str, int]] = {
        ".absmax": ("U8" if nested else "F32", blocks),
        ".quant_map": ("F32", 16),
    }
    if nested:
        expected |= {".nested_absmax": ("F32", -(-blocks // nested.blocksize)), ".nested_quant_map": ("F32", 256)}
    for ending, (kind, count) in expected.items():
        there = source.tensors.get(name + ending)
        if there is None:
            return f"there is no {name}{ending} to decode it with"
        if (there.dtype, there.shape) != (kind, (count,)):
            return f"{name}{ending} is {there.dtype} {list(there.shape)}, expected {kind} [{count}]"
    if not (info.numel + 1) // 2 <= packed.nbytes < (info.numel + 1) // 2 + 8:  # storage of wider elements is padded
        return f"has {packed.nbytes} bytes, expected {(info.numel + 1) // 2} for the shape {list(info.shape)}"
    return BitsandbytesWeight(name, state, blocksize, nested, info)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**40


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= 8 and all(map(_is_size, value)) and prod(value) < 2**48
