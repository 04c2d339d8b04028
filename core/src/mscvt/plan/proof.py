"""What must hold of a description before its tensors are planned in either direction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mscvt.description.description import Description, Parameter
from mscvt.errors import Faults
from mscvt.layout.layout import Box, Layout, uncovered
from mscvt.parallel.topology import Topology
from mscvt.plan.pieces import PieceCache

Use = tuple[Parameter, int]
"""A parameter and the number of the part that a Hugging Face tensor is in it."""

_LISTED = 200


def uses_by_name(parameters: Iterable[Parameter]) -> dict[str, list[Use]]:
    """Every Hugging Face tensor -> where it goes; parameters that are copies of others don't count."""
    uses: dict[str, list[Use]] = {}
    for parameter in parameters:
        if not parameter.is_copy:
            for part, name in enumerate(parameter.names):
                if name is not None:
                    uses.setdefault(name, []).append((parameter, part))
    return uses


def signature(uses: Sequence[Use]) -> tuple[tuple[int, int], ...]:
    """What tensors that lie in the same rules in the same way have in common."""
    return tuple((id(parameter.resolved), part) for parameter, part in uses)


def huggingface_shape(use: Use) -> tuple[int, ...]:
    """The shape that a Hugging Face tensor must have to be this part."""
    return use[0].resolved.layout.part_shape(use[1])


def prove_layouts(
    description: Description, uses: Mapping[str, Sequence[Use]], cache: PieceCache, faults: Faults
) -> None:
    """Prove that no byte on either side is left out or filled twice, once for each distinct layout."""
    seen: set[object] = set()
    places: set[tuple[object, ...]] = set()
    for parameter in description.parameters:
        place = (parameter.stage, parameter.part, parameter.key, parameter.bucket)
        if place in places:
            faults.add(f"{parameter.key} (stage {parameter.stage}, {parameter.part}) is made by two rules")
        places.add(place)
        key = (id(parameter.resolved), parameter.bucket)
        if key not in seen:
            seen.add(key)
            if fault := cache.incomplete(parameter):
                faults.add(f"{parameter.key}: {fault}")
    wholes: dict[int, dict[int, Box]] = {}
    for name, where in uses.items():
        mark = signature(where)
        if mark in seen:
            continue
        seen.add(mark)
        boxes = []
        for parameter, part in where:
            resolved = parameter.resolved
            if id(resolved) not in wholes:
                wholes[id(resolved)] = _whole_boxes(resolved.layout, description.topology)
            boxes.append(wholes[id(resolved)][part])
        if fault := uncovered([run.size for run in boxes[0].runs], boxes):
            faults.add(f"{name}: {fault}")


def _whole_boxes(layout: Layout, topology: Topology) -> dict[int, Box]:
    """What the uncut tensor takes of each of its parts; worked out at once, as a layout may have hundreds of them."""
    ways = dict.fromkeys(topology.counts, 1)
    pieces = layout.pieces(ways, dict.fromkeys(ways, 0))
    return {piece.part: piece.huggingface for piece in pieces if piece.huggingface is not None}


def listed(names: Iterable[str]) -> list[str]:
    """Names for an error, in order; of very many the first ones and a count."""
    ordered = sorted(names)
    if len(ordered) <= _LISTED:
        return ordered
    return [*ordered[:_LISTED], f"... and {len(ordered) - _LISTED} more"]
