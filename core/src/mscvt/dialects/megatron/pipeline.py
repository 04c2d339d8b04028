"""Where Megatron-LM's options put layers and ranks.

Sources: `get_num_layers_to_build` and `get_transformer_layer_offset` of megatron-core, `RankGenerator` of its
parallel_state, `get_checkpoint_name` of Megatron-LM.
"""

from __future__ import annotations

from collections.abc import Collection
from math import lcm

from mscvt.dialects.megatron.dist import in_one_piece
from mscvt.dialects.megatron.layout_text import stages_of
from mscvt.dialects.options import TORCH_DIST, Options
from mscvt.dialects.ranks import check_ranks
from mscvt.errors import Faults
from mscvt.layout.rules import EXPERT, EXPERT_TENSOR, TENSOR
from mscvt.model.options import flag
from mscvt.parallel.grid import Grid
from mscvt.parallel.topology import Chunk, Topology

_ENDS = ("decoder_first_pipeline_num_layers", "decoder_last_pipeline_num_layers")
_ACCOUNTED = ("account_for_embedding_in_pipeline_split", "account_for_loss_in_pipeline_split")
_VIRTUAL = ("num_layers_per_virtual_pipeline_stage", "num_virtual_stages_per_pipeline_rank")
_LAYOUT = "pipeline_model_parallel_layout"


def grid(options: Options, there: Collection[tuple[int, int]] | None) -> Grid:
    """The ranks that these options ask for.

    A file carries no number of the expert tensor rank: in a stage, rank r has tp = r % TP, etp = r % ETP and
    ep = (r // ETP) % EP. So where ETP divides TP it is tp % ETP, and a training run writes some (tp, ep) only.
    """
    tensor = options.target_tensor_parallel_size or 1
    expert = options.target_expert_parallel_size or 1
    inner = options.expert_tensor_parallel_size or tensor
    every = [(t, e) for t in range(tensor) for e in range(expert)]
    if there is not None and not set(there).issuperset(every):
        every = sorted({(r % tensor, r // inner % expert) for r in range(lcm(tensor, inner * expert))})
    counts = {TENSOR: tensor, EXPERT: expert, EXPERT_TENSOR: inner}
    places = {(t, e): {TENSOR: t, EXPERT: e, EXPERT_TENSOR: t % inner} for t, e in every}
    return Grid(tensor, options.target_pipeline_parallel_size or 1, expert, counts, places)


def topology(options: Options, layers: int, there: Collection[tuple[int, int]] | None = None) -> Topology:
    """Lay out so many layers.

    Args:
        options: The options, with defaults.
        layers: The decoder layers.
        there: The (tensor, expert) ranks that a checkpoint has which exists already; None for one to be written.

    Raises:
        MscvtError: Where options contradict each other or the number of layers; all faults at once.
    """
    options = in_one_piece(options)
    faults = Faults()
    check_ranks(options, faults)
    tensor, inner = options.target_tensor_parallel_size or 1, options.expert_tensor_parallel_size
    if inner and tensor % inner:
        name = flag("expert_tensor_parallel_size")
        faults.add(
            f"{name} {inner}: must divide {flag('target_tensor_parallel_size')}, which is {tensor}: ranks with other "
            "experts would write to the same file",
            hint=f"Give {name} a divisor of {tensor}.",
        )
    sizes, mtp = _sizes(options, layers, faults)
    faults.raise_if_any("the parallel options don't fit the model")
    stages = options.target_pipeline_parallel_size or 1
    # a reader calls a single chunk model0 where args record the length of virtual stages
    has_names = len(sizes) > stages or (there is not None and options.num_layers_per_virtual_pipeline_stage)
    chunks, begun = [], 0
    for number, count in enumerate(sizes):
        name = f"model{number // stages}" if has_names else "model"
        chunks.append(Chunk(number % stages, name, tuple(range(begun, begun + count))))
        begun += count
    apart = None if mtp is None or chunks[mtp] == chunks[-1] else chunks[mtp]
    ordered = tuple(sorted(chunks, key=lambda chunk: chunk.stage))
    is_whole = options.ckpt_format == TORCH_DIST
    return Topology(grid(options, there), ordered, chunks[0], chunks[-1], mtp_apart=apart, is_whole=is_whole)


def virtual_stages(options: Options, layers: int) -> int:
    """How many chunks each stage has."""
    return len(_sizes(options, layers, Faults())[0]) // (options.target_pipeline_parallel_size or 1)


def _sizes(options: Options, layers: int, faults: Faults) -> tuple[list[int], int | None]:
    """The layers of each virtual stage, in the order of the layers, and which of these has MTP if that is said."""
    if options.pipeline_model_parallel_layout:
        return _laid_out(options, layers, faults)
    stages, ends = options.target_pipeline_parallel_size or 1, [getattr(options, name) for name in _ENDS]
    accounted = [bool(getattr(options, name)) for name in _ACCOUNTED]
    if any(ends) and any(accounted):
        given = [flag(name) for name in (*_ENDS, *_ACCOUNTED) if getattr(options, name)]
        faults.add(f"{' and '.join(given)} each divide the layers in their own way", hint="Leave out one of them.")
    left, others = layers + sum(accounted) - sum(filter(None, ends)), stages - sum(map(bool, ends))
    if left < 0 or others < 0 or (left % others if others else left):
        what = f"{layers} layers" + (f" and {sum(accounted)} counted besides" if any(accounted) else "")
        if any(ends):
            what += f", without {' and '.join(f'{flag(n)} {v}' for n, v in zip(_ENDS, ends, strict=True) if v)}"
        faults.add(
            f"{what} are not divisible by {flag('target_pipeline_parallel_size')} {stages}",
            hint=f"Give the first or the last stage other layers: {flag(_ENDS[0])}, {flag(_ENDS[1])}, {flag(_LAYOUT)}.",
        )
        return [layers], None
    middle = left // others if others else 0
    counts = [ends[0] or middle, *[middle] * (stages - 2), ends[1] or middle]
    if stages == 1:
        counts = [layers + sum(accounted)]
    chunks = _chunks_of(options, counts, faults)
    sizes = [count // chunks for _ in range(chunks) for count in counts]
    sizes[0] -= accounted[0]
    sizes[-1] -= accounted[1]
    return sizes, None


def _chunks_of(options: Options, counts: list[int], faults: Faults) -> int:
    """How many chunks stages with so many layers have."""
    each, number = options.num_layers_per_virtual_pipeline_stage, options.num_virtual_stages_per_pipeline_rank
    if each and number:
        faults.add(f"{' and '.join(map(flag, _VIRTUAL))} say the same", hint="Leave out one of them.")
    if each and len(set(counts)) > 1:
        faults.add(
            f"{flag(_VIRTUAL[0])} {each}: stages have {', '.join(map(str, counts))} layers",
            hint=f"With stages of unequal length, give {flag(_VIRTUAL[1])}.",
        )
        return 1
    if number is None:
        number = counts[0] // each if each and counts[0] % each == 0 else 0 if each else 1
    if not number or any(count % number for count in counts):
        said = f"{flag(_VIRTUAL[0])} {each}" if each else f"{flag(_VIRTUAL[1])} {number}"
        faults.add(
            f"stages of {', '.join(map(str, counts))} layers are not divisible by {said}",
            hint="Choose a number that divides the layers of every stage.",
        )
        return 1
    if number > 1 and len(counts) == 1:
        faults.add(
            f"{flag('target_pipeline_parallel_size')} 1: a single stage is not divided into {number} virtual ones",
            hint=f"Leave out {flag(_VIRTUAL[0] if each else _VIRTUAL[1])}.",
        )
    return number


def _laid_out(options: Options, layers: int, faults: Faults) -> tuple[list[int], int | None]:
    """What a layout says."""
    text = options.pipeline_model_parallel_layout or ""
    said, pipelines = f"{flag(_LAYOUT)} {text}", options.target_pipeline_parallel_size or 1
    for other in (*_ENDS, *_ACCOUNTED, *_VIRTUAL):
        if getattr(options, other):
            faults.add(f"{said} can't be used together with {flag(other)}", hint="Leave out one of them.")
    stages = stages_of(text)
    if len(stages) % pipelines:
        faults.add(
            f"{said}: has {len(stages)} stages, {flag('target_pipeline_parallel_size')} is {pipelines}",
            hint=f"Give a multiple of {pipelines} stages.",
        )
    letters, mtp = "".join(stages), options.mtp_num_layers or 0
    for letter, what, expected in (("t", "layers", layers), ("m", "MTP layers", mtp)):
        if letters.count(letter) != expected:
            faults.add(
                f"{said}: has {letters.count(letter)} {what} ({letter}), the model has {expected}",
                hint=f"Write {letter} once for each of them.",
            )
    if not letters.startswith("E") or letters.count("E") > 1 or not letters.endswith("L") or letters.count("L") > 1:
        faults.add(f"{said}: must begin with the one E and end with the one L", hint="E is the embedding, L the loss.")
    with_mtp = [number for number, stage in enumerate(stages) if "m" in stage]
    if len(with_mtp) > 1 or "mt" in letters or (with_mtp and with_mtp[0] < len(stages) - pipelines):
        faults.add(
            f"{said}: MTP layers (m) must be in one stage, in the last chunk of its rank, behind every t",
            hint="Write them together in one of the last stages.",
        )
    if faults:
        return [layers], None
    return [stage.count("t") for stage in stages], with_mtp[0] if with_mtp else None
