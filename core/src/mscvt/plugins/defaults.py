"""The core's own answers to the hooks, asked after the family's plugin."""

from __future__ import annotations

from collections.abc import Sequence

from mscvt.layout.rules import Rule
from mscvt.model.family import DENSE, Hyperparameters, Layer
from mscvt.parallel.topology import Topology
from mscvt.plugins.hookspecs import hookimpl


@hookimpl
def mscvt_layers(hyperparameters: Hyperparameters) -> Sequence[Layer]:
    """Every layer is a dense decoder layer."""
    return [Layer(i, DENSE) for i in range(hyperparameters["num_layers"])]


@hookimpl
def mscvt_split_rules() -> Sequence[Rule]:
    """The dialect's rules are enough."""
    return ()


@hookimpl
def mscvt_placement(topology: Topology, layers: Sequence[Layer]) -> Sequence[tuple[int, str, int]]:
    """Decoder layers fill the slots that are not noop; MTP layers stand in the last chunk."""
    slots = topology.place_layers()
    places = []
    for layer in layers:
        if layer.mtp is None:
            chunk, number = next(slots)
            places.append((chunk.stage, chunk.name, number))
        else:
            places.append((topology.last.stage, topology.last.name, layer.mtp))
    return places
