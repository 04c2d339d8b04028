"""Rotary positions."""

from __future__ import annotations

import torch
from torch import Tensor

from mscvt.errors import MscvtError
from mscvt.testing.forward.model import Model


def rotated(x: Tensor, model: Model, *, interleave: bool) -> Tensor:
    """Channels turned in pairs, by angles that grow with the position.

    Args:
        x: `[..., sequence, channels]`; all channels are turned.
        model: For `rope_parameters`.
        interleave: A pair is two neighbours; else channels `c` and `c + channels / 2`.

    Raises:
        MscvtError: For rotary positions that are scaled.
    """
    rope = model.value("rope_parameters")
    if rope.get("rope_type", "default") != "default":
        raise MscvtError(
            f"rope_type is {rope['rope_type']}, expected default",
            hint="Scaling takes no tensor: give the small model rotary positions without it.",
        )
    sequence, channels = x.shape[-2:]
    frequencies = rope["rope_theta"] ** (-torch.arange(0, channels, 2, dtype=torch.float32) / channels)
    angles = torch.arange(sequence, dtype=torch.float32)[:, None] * frequencies  # [sequence, channels / 2]
    cos, sin = angles.cos(), angles.sin()
    first, second = (x[..., 0::2], x[..., 1::2]) if interleave else x.chunk(2, dim=-1)
    turned = first * cos - second * sin, second * cos + first * sin
    return torch.stack(turned, dim=-1).flatten(-2) if interleave else torch.cat(turned, dim=-1)
