"""bitsandbytes' 8-bit weights: value = int8 value * scale of its row * 1/127, in f32, rounded once.

The scales are the largest absolute values of the rows. Source: `int8_vectorwise_dequant` of bitsandbytes, which
multiplies by 1/127 in f32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mscvt.errors import Faults
from mscvt.records import dataclass
from mscvt.tensors.info import TORCH_NAMES, TensorInfo
from mscvt.tensors.quantized.matrix import DecodedMatrix, tiles
from mscvt.tensors.quantized.weight import whole
from mscvt.tensors.sources import Source, SourceTensor

if TYPE_CHECKING:
    import torch

_SCALES, _FORMAT = ".SCB", ".weight_format"
_BY_ROWS = 0
"""The format of weights that lie row by row; others are tiled for some GPUs, and older releases had them."""
_STEP = 7.874015718698502e-3
"""1/127 as f32 holds it."""


@dataclass(frozen=True, slots=True)
class Int8Weight:
    """A matrix of int8 values `[rows, columns]` and its scales `[rows]`."""

    name: str
    companions: tuple[str, ...]
    """The scales, and the format where it is said."""
    info: TensorInfo

    @property
    def kind(self) -> str:
        """What people call the format."""
        return "bitsandbytes int8"

    def open(self, source: Source) -> SourceTensor:
        """The values in the model's dtype."""
        import torch

        values, scales = whole(source, self.name), whole(source, self.companions[0])[:, None]
        dtype = getattr(torch, TORCH_NAMES[self.info.dtype])

        def decode(first: int, end: int, left: int, right: int) -> torch.Tensor:
            decoded = torch.empty((end - first, right - left), dtype=dtype)
            for start, stop in tiles(first, end, right - left):
                product = values[start:stop, left:right].to(torch.float32).mul_(scales[start:stop]).mul_(_STEP)
                decoded[start - first : stop - first] = product
            return decoded

        return DecodedMatrix(self.info.shape[1], decode, self.info.dtype)


def find_int8(source: Source, dtype: str | None, faults: Faults) -> dict[str, Int8Weight]:
    """Every 8-bit weight by its name; whatever of one does not fit the rest is a fault.

    Args:
        source: The checkpoint.
        dtype: safetensors' name of what they are decoded to, None where that is not known.
        faults: Takes what doesn't fit.
    """
    found: dict[str, Int8Weight] = {}
    for scales in sorted(name for name in source.tensors if name.endswith(_SCALES)):
        module = scales.removesuffix(_SCALES)
        name, order = module + ".weight", module + _FORMAT
        info = source.tensors.get(name)
        if info is None:
            faults.add(f"{scales}: there is no {name} that it is the scale of")
        elif wrong := _wrong(source, name, scales, order):
            faults.add(f"{name}: {wrong}")
        elif dtype is None:
            faults.add(
                f"{name}: nothing says to which dtype bitsandbytes int8 is decoded",
                hint='Put "dtype": "bfloat16" (or float16, float32) into config.json.',
            )
        else:
            companions = (scales, order) if order in source.tensors else (scales,)
            found[name] = Int8Weight(name, companions, info._replace(dtype=dtype))
    return found


def _wrong(source: Source, name: str, scales: str, order: str) -> str | None:
    """What of a weight, its scales and its format doesn't fit."""
    info, scale, said = source.tensors[name], source.tensors[scales], source.tensors.get(order)
    if info.dtype != "I8" or len(info.shape) != 2 or (scale.dtype, scale.shape) != ("F32", info.shape[:1]):
        return (
            f"{info.dtype} {list(info.shape)} with scales {scale.dtype} {list(scale.shape)}, "
            "expected I8 of two dimensions with one F32 for each row"
        )
    if said is None:
        return None
    if (said.dtype, said.numel) != ("U8", 1):
        return f"{order} is {said.dtype} {list(said.shape)}, expected one U8"
    number = int(source.tensor(order).region(0, (1,), (1,))[0])
    return None if number == _BY_ROWS else f"{order} says format {number}, expected {_BY_ROWS}, row by row"
