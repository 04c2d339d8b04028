"""Projections, norms and activations: the arithmetic that takes one tensor, and its bias if there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from torch import Tensor
from torch.nn import functional

from mscvt.errors import MscvtError
from mscvt.testing.forward.model import Model
from mscvt.testing.forward.roles import Roles


def _squared_relu(x: Tensor) -> Tensor:
    return functional.relu(x).square()


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "silu": functional.silu,
        "gelu": functional.gelu,
        "gelu_pytorch_tanh": partial(functional.gelu, approximate="tanh"),
        "relu2": _squared_relu,
    }
)
"""The values of `hidden_act`."""


def projected(x: Tensor, layer: Roles, role: str) -> Tensor:
    """`x` times the weight of a role `[out, in]`, plus `{role}_bias` `[out]` if the layer has it."""
    return functional.linear(x, layer[role], layer.get(f"{role}_bias"))


def normalized(x: Tensor, layer: Roles, role: str, model: Model, eps: float | None = None) -> Tensor:
    """The norm of a role over the last axis: LayerNorm if the layer has `{role}_bias`, else RMSNorm.

    Args:
        x: `[..., channels]`.
        layer: Where the role is looked up.
        role: Its weight has the shape `[channels]`.
        model: For the constant and the offset of weights.
        eps: A constant other than the model's.
    """
    weight = layer[role] + model.conventions.norm_offset
    bias = layer.get(f"{role}_bias")
    eps = model.eps if eps is None else eps
    if bias is None:
        return functional.rms_norm(x, list(weight.shape), weight, eps)
    return functional.layer_norm(x, list(weight.shape), weight, bias, eps)


def feed_forward(x: Tensor, layer: Roles, prefix: str, model: Model) -> Tensor:
    """Down of (activated gate times up), or of activated up where there is no gate.

    Gate and up may be one tensor, `{prefix}.gate_up` `[2 * ffn, hidden]`, gate first.

    Raises:
        MscvtError: For an activation that is not known.
    """
    name = model.value("hidden_activation", "hidden_act")
    if name not in ACTIVATIONS:
        raise MscvtError(f"hidden_act is {name}, expected one of {', '.join(ACTIVATIONS)}")
    activated = ACTIVATIONS[name]
    if layer.has(f"{prefix}.gate_up"):
        gate, up = projected(x, layer, f"{prefix}.gate_up").chunk(2, dim=-1)
        inner = activated(gate) * up
    elif layer.has(f"{prefix}.gate"):
        inner = activated(projected(x, layer, f"{prefix}.gate")) * projected(x, layer, f"{prefix}.up")
    else:
        inner = activated(projected(x, layer, f"{prefix}.up"))
    return projected(inner, layer, f"{prefix}.down")


def dense(x: Tensor, layer: Roles, model: Model) -> Tensor:
    """The block of `mlp.*`."""
    return feed_forward(x, layer, "mlp", model)
