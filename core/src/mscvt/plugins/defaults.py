"""The core's own answers to the hooks, asked after the family's plugin."""

from __future__ import annotations

from collections.abc import Sequence

from mscvt.layout.rules import Rule
from mscvt.model.family import DENSE, MOE, Hyperparameters, Layer
from mscvt.parallel.topology import Topology
from mscvt.plugins.hookspecs import hookimpl


@hookimpl
def mscvt_layers(hyperparameters: Hyperparameters) -> Sequence[Layer]:
    """Dense layers, then those with experts where the model has any, then MTP layers, which have them too."""
    size, has_experts = hyperparameters["num_layers"], bool(hyperparameters.get("num_experts"))
    dense = hyperparameters.get("first_k_dense_replace", 0) if has_experts else size
    layers = [Layer(i, DENSE if i < dense else MOE) for i in range(size)]
    depth = hyperparameters.get("mtp_num_layers", 0)
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
