"""Finding weights with scales beside them: `X_scale_inv` for `X`, or `X.scale` for `X.weight`."""

from __future__ import annotations

from mscvt.errors import Faults
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.quantized.block_fp8 import SCALE_DTYPES, BlockFp8Weight
from mscvt.tensors.quantized.fp4 import GROUP, Fp4Weight
from mscvt.tensors.sources import Source

SCALE_SUFFIX = "_scale_inv"
_SHORT_SUFFIX = ".scale"


def find_block_scaled(source: Source, block: tuple[int, int], faults: Faults) -> dict[str, BlockFp8Weight | Fp4Weight]:
    """Every FP8 and FP4 weight by its name; a scale without a weight, or the other way round, is a fault.

    Args:
        source: The checkpoint.
        block: Rows and columns of an FP8 block.
        faults: Takes what doesn't fit.
    """
    scales: dict[str, str] = {}
    for name in sorted(name for name in source.tensors if name.endswith((SCALE_SUFFIX, _SHORT_SUFFIX))):
        weight = _weight_of(name, source)
        if weight is None:
            continue
        if weight not in source.tensors:
            faults.add(f"{name}: there is no {weight} that it is the scale of", hint=_INCOMPLETE)
        elif weight in scales:
            faults.add(f"{weight} has two scales, {scales[weight]} and {name}")
        else:
            scales[weight] = name
    found: dict[str, BlockFp8Weight | Fp4Weight] = {}
    quantized = scales.keys() | {name for name, info in source.tensors.items() if info.dtype.startswith("F8_")}
    for name in sorted(quantized):
        info = source.tensors[name]
        if name in scales:
            weight_or_fault = _weight(name, info, scales[name], source.tensors[scales[name]], block)
            if isinstance(weight_or_fault, str):
                faults.add(weight_or_fault)
            else:
                found[name] = weight_or_fault
        elif name not in scales.values():
            faults.add(
                f"{name}: {info.dtype} and no {name}{SCALE_SUFFIX}{_or_short(name)} to decode it with",
                hint=_INCOMPLETE,
            )
    return found


_INCOMPLETE = "Is the download complete?"


def _or_short(name: str) -> str:
    short = name.removesuffix(".weight")
    return f" or {short}{_SHORT_SUFFIX}" if short != name else ""


def _weight_of(name: str, source: Source) -> str | None:
    """The weight that a tensor is the scale of, or None where it is no scale."""
    if name.endswith(SCALE_SUFFIX):
        return name.removesuffix(SCALE_SUFFIX)
    if name.endswith(_SHORT_SUFFIX):
        weight = name.removesuffix(_SHORT_SUFFIX) + ".weight"
        info = source.tensors.get(weight)
        is_quantized = info is not None and (info.dtype == "I8" or info.dtype.startswith("F8_"))
        if is_quantized or source.tensors[name].dtype == "F8_E8M0":  # others are parameters of that name
            return weight
    return None


def _weight(
    name: str, info: TensorInfo, scale_name: str, scale: TensorInfo, block: tuple[int, int]
) -> BlockFp8Weight | Fp4Weight | str:
    """A weight with its scales, or what is wrong with them."""
    if info.dtype == "I8" and len(info.shape) == 2:
        rows, columns = info.shape[0], 2 * info.shape[1]
        if scale.dtype == "F8_E8M0" and columns % GROUP == 0 and scale.shape == (rows, columns // GROUP):
            return Fp4Weight(name, scale_name, info._replace(dtype="BF16", shape=(rows, columns)))
        expected = f"one F8_E8M0 scale for each {GROUP} columns of a row, two columns in each byte"
    else:
        blocks = tuple(-(-size // step) for size, step in zip(info.shape, block, strict=False))
        if info.dtype == "F8_E4M3" and len(info.shape) == 2 and scale.shape == blocks and scale.dtype in SCALE_DTYPES:
            return BlockFp8Weight(name, scale_name, block, info._replace(dtype="BF16"))
        expected = (
            f"F8_E4M3 of two dimensions with one scale ({', '.join(sorted(SCALE_DTYPES))}) "
            f"for each block of {block[0]} x {block[1]}"
        )
    return f"{name}: {info.dtype} {list(info.shape)} with scales {scale.dtype} {list(scale.shape)}, expected {expected}"
