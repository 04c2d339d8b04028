"""Topology: which rank, stage and chunk holds which layer slot. Pure arithmetic on validated options.

A *slot* is a place for a layer in the pipeline, real or noop; real layers fill the slots that are not
noop in order. A *chunk* is what one stage keeps in one `model` dict: the whole stage, or one virtual
stage of it. The rules follow MindSpeed-LLM's training side (`get_num_layers_to_build` and noop layers).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

from mscvt.dialects.mindspeed.options import Options
from mscvt.errors import Faults
from mscvt.model.options import flag

TENSOR, EXPERT, EXPERT_TENSOR = "tensor", "expert", "expert_tensor"
"""The parallel dimensions that a layout can be cut by; EXPERT counts the buckets that experts go round."""

_MOST_RANKS = 1 << 20

DIMENSION_FLAGS: Mapping[str, str] = {
    TENSOR: flag("target_tensor_parallel_size"),
    EXPERT: flag("target_expert_parallel_size"),
    EXPERT_TENSOR: flag("expert_tensor_parallel_size"),
}


@dataclass(frozen=True, slots=True, order=True)
class Rank:
    """One model-parallel rank, which is one file of a checkpoint."""

    tensor: int
    pipeline: int
    expert: int


MegatronName = tuple[Rank, str, str]
"""A tensor of a checkpoint: rank, part (`model`, `model0`, ...) and key."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The slots that a stage keeps in one dict of its file."""

    stage: int
    part: str
    """Where it is kept: `model`, or `model0`, `model1`, ... with virtual stages."""
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Topology:
    """All ranks and chunks of a checkpoint, and where each real layer goes."""

    options: Options
    """Validated, with defaults filled in."""
    chunks: tuple[Chunk, ...]
    """By stage, then by number inside the stage."""
    first: Chunk
    """The chunk that holds the embedding."""
    last: Chunk
    """The chunk that holds the final norm, the output layer and the MTP layers."""

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many ways each parallel dimension cuts."""
        o = self.options
        tensor, expert = o.target_tensor_parallel_size or 1, o.target_expert_parallel_size or 1
        if o.moe_tp_extend_ep:
            return {TENSOR: tensor, EXPERT: expert * tensor, EXPERT_TENSOR: 1}
        return {TENSOR: tensor, EXPERT: expert, EXPERT_TENSOR: o.expert_tensor_parallel_size or tensor}

    def index(self, rank: Rank) -> dict[str, int]:
        """A rank's place in each parallel dimension."""
        expert = rank.expert
        if self.options.moe_tp_extend_ep:
            expert = rank.expert * self.counts[TENSOR] + rank.tensor
        return {
            TENSOR: rank.tensor,
            EXPERT: expert,
            EXPERT_TENSOR: rank.tensor if self.counts[EXPERT_TENSOR] > 1 else 0,
        }

    @cached_property
    def grid(self) -> tuple[tuple[int, int], ...]:
        """The (tensor, expert) ranks that exist on every stage.

        With whole experts on every tensor rank (ETP 1), only the ranks that hold something new are written.
        """
        tensor = self.counts[TENSOR]
        expert = self.options.target_expert_parallel_size or 1
        if self.options.expert_tensor_parallel_size == tensor or self.options.moe_tp_extend_ep:
            return tuple((t, e) for t in range(tensor) for e in range(expert))
        if tensor % expert == 0:
            return tuple((t, t % expert) for t in range(tensor))
        return tuple(sorted((e % tensor, e) for e in range(expert)))

    def ranks(self, stage: int | None = None) -> Iterator[Rank]:
        """All ranks, or those of one stage, in the order of their names."""
        stages = range(self.options.target_pipeline_parallel_size or 1) if stage is None else (stage,)
        for tensor, expert in self.grid:
            for pipeline in stages:
                yield Rank(tensor, pipeline, expert)

    def place_layers(self) -> Iterator[tuple[Chunk, int]]:
        """Yield (chunk, slot number inside the chunk) for each real layer, in the order of the layers."""
        noop = frozenset(self.options.noop_layers or ())
        owner = {slot: (chunk, number) for chunk in self.chunks for number, slot in enumerate(chunk.slots)}
        for slot in sorted(owner):
            if slot not in noop:
                yield owner[slot]


def build_topology(options: Options, layers: int) -> Topology:
    """Lay out `layers` real layers.

    Raises:
        MscvtError: Where options contradict each other or the number of layers; all faults at once.
    """
    faults = Faults()
    noop = options.noop_layers or ()
    slots = layers + len(noop)
    _check_ranks(options, faults)
    _check_noop(noop, slots, faults)
    _check_experts(options, faults)
    chunks = _chunks(options, slots, faults)
    faults.raise_if_any("the parallel options don't fit the model")
    first = chunks[0]
    last = chunks[1] if options.schedules_method == "dualpipev" else chunks[-1]
    return Topology(options, tuple(chunks), first, last)


def _check_ranks(options: Options, faults: Faults) -> None:
    """Refuse what no machine has before anything is counted out rank by rank."""
    names = ("target_tensor_parallel_size", "target_pipeline_parallel_size", "target_expert_parallel_size")
    sizes = [getattr(options, name) or 1 for name in names]
    if prod(sizes) > _MOST_RANKS:
        shown = " x ".join(f"{flag(name)} {size}" for name, size in zip(names, sizes, strict=True))
        faults.add(f"{shown}: more than {_MOST_RANKS} ranks", hint="Choose smaller sizes.")


def _check_noop(noop: tuple[int, ...], slots: int, faults: Faults) -> None:
    name = flag("noop_layers")
    shown = ",".join(map(str, noop))
    if repeated := sorted({slot for slot in noop if noop.count(slot) > 1}):
        faults.add(f"{name} {shown}: {', '.join(map(str, repeated))} given more than once", hint="Name each slot once.")
    if outside := [slot for slot in noop if not 0 <= slot < slots]:
        faults.add(
            f"{name} {shown}: {', '.join(map(str, outside))} is out of range, there are {slots} slots "
            f"({slots - len(noop)} layers and {len(noop)} noop), numbered 0 to {slots - 1}",
            hint=f"Slots are numbered from 0 and count noop layers too; name some of 0 to {slots - 1}.",
        )
    if noop and len(noop) >= slots:
        faults.add(f"{name} {shown}: covers all {slots} slots, no layer is left", hint="Name fewer slots.")


def _check_experts(options: Options, faults: Faults) -> None:
    tensor = options.target_tensor_parallel_size or 1
    expert = options.target_expert_parallel_size or 1
    inner = options.expert_tensor_parallel_size
    name = flag("expert_tensor_parallel_size")
    if inner not in (1, tensor):
        faults.add(
            f"{name} {inner}: must be 1 or {flag('target_tensor_parallel_size')}, which is {tensor}",
            hint=f"Give {name} 1, or leave it out.",
        )
    if inner == 1 and tensor > 1:
        if options.moe_tp_extend_ep:
            faults.add(
                f"{name} 1 and {flag('moe_tp_extend_ep')} contradict each other",
                hint=f"Leave out one of them; {flag('moe_tp_extend_ep')} alone leaves experts uncut too.",
            )
        if tensor % expert and expert % tensor:
            faults.add(
                f"{name} 1: of {flag('target_tensor_parallel_size')} {tensor} and "
                f"{flag('target_expert_parallel_size')} {expert} one must be a multiple of the other",
                hint=f"Change one of them, or leave out {name}.",
            )


def _chunks(options: Options, slots: int, faults: Faults) -> list[Chunk]:
    """The chunks of all stages; with faults added, the result means nothing."""
    stages = options.target_pipeline_parallel_size or 1
    virtual = options.num_layers_per_virtual_pipeline_stage
    dualpipev = options.schedules_method == "dualpipev"
    if options.num_layer_list:
        return _listed_chunks(options, slots, faults)
    if virtual and dualpipev:
        faults.add(
            f"{flag('num_layers_per_virtual_pipeline_stage')} {virtual} and {flag('schedules_method')} "
            "dualpipev each divide a stage in their own way",
            hint="Leave out one of them.",
        )
        return []
    if slots % stages:
        noop = f"{slots} slots ({slots - len(options.noop_layers or ())} layers and the noop layers)"
        what = noop if options.noop_layers else f"{slots} layers"
        faults.add(
            f"{what} are not divisible by {flag('target_pipeline_parallel_size')} {stages}",
            hint=f"Add {-slots % stages} with {flag('noop_layers')}, or give each stage's layers with "
            f"{flag('num_layer_list')}.",
        )
        return []
    share = slots // stages
    if virtual:
        if share % virtual:
            faults.add(
                f"{share} layers a stage are not divisible by "
                f"{flag('num_layers_per_virtual_pipeline_stage')} {virtual}",
                hint=f"Choose a divisor of {share}.",
            )
            return []
        return [
            Chunk(p, f"model{c}", tuple(range((c * stages + p) * virtual, (c * stages + p + 1) * virtual)))
            for p in range(stages)
            for c in range(share // virtual)
        ]
    if dualpipev:
        if share % 2:
            faults.add(
                f"{flag('schedules_method')} dualpipev needs an even number of layers a stage, here {share}",
                hint=f"Add noop layers with {flag('noop_layers')}, or change {flag('target_pipeline_parallel_size')}.",
            )
            return []
        half = share // 2
        spans = [((p * half, (p + 1) * half), (slots - (p + 1) * half, slots - p * half)) for p in range(stages)]
        return [Chunk(p, f"model{c}", tuple(range(*span))) for p in range(stages) for c, span in enumerate(spans[p])]
    return [Chunk(p, "model", tuple(range(p * share, (p + 1) * share))) for p in range(stages)]


def _listed_chunks(options: Options, slots: int, faults: Faults) -> list[Chunk]:
    counts = options.num_layer_list or ()
    name, shown = flag("num_layer_list"), ",".join(map(str, counts))
    for other in ("num_layers_per_virtual_pipeline_stage", "noop_layers", "schedules_method"):
        if getattr(options, other):
            faults.add(f"{name} {shown} can't be used together with {flag(other)}", hint="Leave out one of them.")
    stages = options.target_pipeline_parallel_size or 1
    if len(counts) != stages:
        faults.add(
            f"{name} {shown}: has {len(counts)} entries, {flag('target_pipeline_parallel_size')} is {stages}",
            hint="Give one entry for each stage.",
        )
    if any(count < 0 for count in counts):
        faults.add(f"{name} {shown}: an entry is negative", hint="A stage without layers has the entry 0.")
    if sum(counts) != slots:
        faults.add(
            f"{name} {shown}: sums to {sum(counts)}, the model has {slots} layers",
            hint=f"Give entries whose sum is {slots}.",
        )
    starts = [sum(counts[:p]) for p in range(len(counts))]
    return [
        Chunk(p, "model", tuple(range(start, start + count)))
        for p, (start, count) in enumerate(zip(starts, counts, strict=True))
    ]
