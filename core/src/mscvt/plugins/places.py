"""Where a plugin places layers: at slots that are there, one layer at each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mscvt.errors import Faults
from mscvt.model.family import Layer
from mscvt.parallel.topology import Topology


def check_places(topology: Topology, layers: Sequence[Layer], places: Sequence[tuple[Any, ...]]) -> Faults:
    """What is wrong with the place of each layer.

    Args:
        topology: The stages, their chunks and slots.
        layers: The layers.
        places: As many: each should be stage, chunk and number in the chunk.
    """
    slots = {(chunk.stage, chunk.name): len(chunk.slots) for chunk in topology.chunks}
    taken: dict[tuple[tuple[int, str, int], bool], Layer] = {}
    faults = Faults()
    for layer, place in zip(layers, places, strict=True):
        if [type(number) for number in place] != [int, str, int]:
            faults.add(f"layer {layer.index} is placed at {place!r}, expected stage, chunk and number")
        elif place[:2] not in slots:
            faults.add(f"layer {layer.index} is placed at {place!r}, there is no such stage and chunk")
        elif layer.mtp is None and not 0 <= place[2] < slots[place[:2]]:
            faults.add(f"layer {layer.index} is placed at {place!r}, the chunk has {slots[place[:2]]} slots")
        elif (first := taken.setdefault((place, layer.mtp is None), layer)) is not layer:
            faults.add(f"layers {first.index} and {layer.index} are both placed at {place!r}")
    return faults
