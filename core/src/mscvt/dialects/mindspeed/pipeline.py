"""Where MindSpeed-LLM's options put layers and ranks: stages, virtual stages, layer lists, noop layers, DualPipeV.

The rules follow MindSpeed-LLM's training side (`get_num_layers_to_build` and noop layers).
"""

from __future__ import annotations

from collections.abc import Collection

from mscvt.dialects.options import Options
from mscvt.dialects.ranks import check_ranks
from mscvt.errors import Faults
from mscvt.layout.rules import EXPERT, EXPERT_TENSOR, TENSOR
from mscvt.model.options import flag
from mscvt.parallel.grid import Grid
from mscvt.parallel.topology import Chunk, Topology


def grid(options: Options) -> Grid:
    """The ranks that these options ask for.

    With whole experts on every tensor rank (ETP 1), only the ranks that hold something new are there. With
    `--moe-tp-extend-ep` whole experts go round all expert and tensor ranks.
    """
    tensor = options.target_tensor_parallel_size or 1
    expert = options.target_expert_parallel_size or 1
    inner = options.expert_tensor_parallel_size or tensor
    if options.moe_tp_extend_ep:
        counts = {TENSOR: tensor, EXPERT: expert * tensor, EXPERT_TENSOR: 1}
        places = {
            (t, e): {TENSOR: t, EXPERT: e * tensor + t, EXPERT_TENSOR: 0} for t in range(tensor) for e in range(expert)
        }
    else:
        counts = {TENSOR: tensor, EXPERT: expert, EXPERT_TENSOR: inner}
        if inner == tensor:
            pairs = [(t, e) for t in range(tensor) for e in range(expert)]
        elif tensor % expert == 0:
            pairs = [(t, t % expert) for t in range(tensor)]
        else:
            pairs = sorted((e % tensor, e) for e in range(expert))
        places = {(t, e): {TENSOR: t, EXPERT: e, EXPERT_TENSOR: t if inner > 1 else 0} for t, e in pairs}
    return Grid(tensor, options.target_pipeline_parallel_size or 1, expert, counts, places)


def topology(
    options: Options,
    layers: int,
    there: Collection[tuple[int, int]] | None = None,  # noqa: ARG001  # ranks follow from the options alone
) -> Topology:
    """Lay out so many real layers; the options are validated, with defaults filled in.

    Raises:
        MscvtError: Where options contradict each other or the number of layers; all faults at once.
    """
    faults = Faults()
    noop = options.noop_layers or ()
    slots = layers + len(noop)
    check_ranks(options, faults)
    _check_noop(noop, slots, faults)
    _check_experts(options, faults)
    chunks = _chunks(options, slots, faults)
    faults.raise_if_any("the parallel options don't fit the model")
    first = chunks[0]
    last = chunks[1] if options.schedules_method == "dualpipev" else chunks[-1]
    return Topology(grid(options), tuple(chunks), first, last, frozenset(noop))


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
    if virtual and stages == 1:
        faults.add(
            f"{flag('num_layers_per_virtual_pipeline_stage')} {virtual} means nothing with one stage, "
            "training refuses it",
            hint=f"Leave it out, or give more stages with {flag('target_pipeline_parallel_size')}.",
        )
        return []
    if slots % stages:
        noop = f"{slots} slots ({slots - len(options.noop_layers or ())} layers and the noop layers)"
        what, more = (noop, " more") if options.noop_layers else (f"{slots} layers", "")
        faults.add(
            f"{what} are not divisible by {flag('target_pipeline_parallel_size')} {stages}",
            hint=f"Add {-slots % stages}{more} with {flag('noop_layers')}, or give each stage's layers with "
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
