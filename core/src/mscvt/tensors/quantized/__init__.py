"""Quantized weights as sources of what they mean: found by their scales, decoded where they are read."""

from mscvt.tensors.quantized.dequantize import DequantizedSource, dequantized, refuse_quantized

__all__ = ["DequantizedSource", "dequantized", "refuse_quantized"]
