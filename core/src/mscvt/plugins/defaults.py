"""The core's own answers to the hooks, asked after the family's plugin."""

from __future__ import annotations

from collections.abc import Sequence

from mscvt.layout.rules import Rule
from mscvt.model.family import DENSE, MOE, Hyperparameters, Layer
from mscvt.parallel.topology import Topology
from mscvt.plugins.hookspecs import hookimpl


@hookimpl
def mscvt_layers(hyperparameters: Hyperparameters) -> Sequence[Layer]:
    """Dense layers where fields under the usual names say so, experts in the others, then MTP layers."""
    h = hyperparameters
    size, has_experts, leading = h["num_layers"], bool(h.get("num_experts")), h.get("first_k_dense_replace", 0)
    every, step, listed = h.get("moe_layer_freq", 1), h.get("decoder_sparse_step", 1), h.get("mlp_only_layers", ())
    layers = []
    for i in range(size):
        is_dense = not has_experts or i < leading or i % every or (i + 1) % step or i in listed
        layers.append(Layer(i, DENSE if is_dense else MOE))
    depth = h.get("mtp_num_layers", 0)
    return layers + [Layer(size + m, MOE if has_experts else DENSE, mtp=m) for m in range(depth)]


@hookimpl
def mscvt_split_rules() -> Sequence[Rule]:
    """The dialect's rules are enough."""
    return ()


@hookimpl
def mscvt_placement(topology: Topology, layers: Sequence[Layer]) -> Sequence[tuple[int, str, int]]:
    """Decoder layers fill the slots that are not noop; MTP layers stand in the chunk that is theirs."""
    slots = topology.place_layers()
    places = []
    for layer in layers:
        if layer.mtp is None:
            chunk, number = next(slots)
            places.append((chunk.stage, chunk.name, number))
        else:
            places.append((topology.mtp.stage, topology.mtp.name, layer.mtp))
    return places
