"""Planning Hugging Face -> Megatron."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from math import prod

from mscvt.description.description import Description, Parameter
from mscvt.errors import Faults, MscvtError
from mscvt.formats.megatron_torch.paths import SHARD, iteration_folder, rank_folder
from mscvt.parallel.topology import EXPERT, Rank
from mscvt.plan.contents import Content, Copy, Name, OutputFile, Plan, Region, Unit, copy_of
from mscvt.plan.pieces import Index, PieceCache
from mscvt.plan.proof import huggingface_shape, listed, prove_layouts, uses_by_name
from mscvt.tensors.info import FLOATS, TensorInfo

ITERATION = 1


def plan_to_megatron(
    description: Description,
    source: Mapping[str, TensorInfo],
    *,
    ignored: tuple[str, ...] = (),
    dtype: str | None = None,
) -> Plan:
    """Plan all shards of a Megatron checkpoint.

    Args:
        description: The model.
        source: Every tensor of the Hugging Face checkpoint.
        ignored: Patterns of source tensors that hold no weights.
        dtype: Convert floating-point tensors to this dtype; None keeps each one's own.

    Raises:
        MscvtError: Where the source lacks a tensor, has one that no rule takes, or one of another shape or
            dtype than the model's; all of them at once.
    """
    planner = _Planner(description, source, dtype)
    left_out = planner.prove(ignored)
    order = sorted(planner.work(), key=planner.position)

    def units() -> Iterator[Unit]:
        for number, (parameter, shares) in enumerate(order):
            yield Unit(number, tuple(planner.content(parameter, index) for index in shares))

    equal = tuple(
        (alias.of, name, source[name].numel) for name, alias in sorted(description.aliases.items()) if name in source
    )
    return Plan(tuple(planner.files()), len(order), units, equal, left_out)


Work = tuple[Parameter, tuple[Index, ...]]


class _Planner:
    def __init__(self, description: Description, source: Mapping[str, TensorInfo], dtype: str | None) -> None:
        self.description, self.source, self.dtype = description, source, dtype
        self.cache = PieceCache(description.topology)
        self.regions: dict[tuple[int, Index], tuple[Region, ...]] = {}

    def prove(self, ignored: tuple[str, ...]) -> dict[str, str]:
        """Prove that the source is what the description needs; returns what is left out and why."""
        faults = Faults()
        uses = uses_by_name(self.description.parameters)
        aliases = self.description.aliases
        left_out = {name: why for name, why in self.description.left_out.items() if name in self.source}
        extra = []
        for name in self.source.keys() - uses.keys() - aliases.keys() - left_out.keys():
            if any(fnmatchcase(name, pattern) for pattern in ignored):
                left_out[name] = "holds no weights"
            else:
                extra.append(name)
        for name in listed(uses.keys() - self.source.keys()):
            faults.add(f"missing: {name}", hint="Is the download complete, and the model type right?")
        for name in listed(extra):
            faults.add(
                f"no rule takes: {name}", hint="A tensor that nothing takes would be lost; is the model type right?"
            )
        for name, where in uses.items():
            if name in self.source:
                for use in where:
                    if (expected := huggingface_shape(use)) != (got := self.source[name].shape):
                        faults.add(
                            f"{name} has the shape {list(got)}, expected {list(expected)} from config.json",
                            hint="The weights and config.json belong to different models.",
                        )
        for name, alias in aliases.items():
            info, primary = self.source.get(name), self.source.get(alias.of)
            if info and primary and (info.shape, info.dtype) != (primary.shape, primary.dtype):
                faults.add(f"{name} repeats {alias.of} and has another shape or dtype")
        faults.raise_if_any("the checkpoint is not what the model needs")
        prove_layouts(self.description, uses, self.cache, faults)
        for parameter in self.description.parameters:
            try:
                self.dtype_of(parameter)
            except MscvtError as error:
                faults.add(error.message, hint=error.hint)
        faults.raise_if_any("the plan does not hold")
        return left_out

    def dtype_of(self, parameter: Parameter) -> str:
        """The dtype a parameter gets: its sources', unless another was asked for."""
        found = sorted({self.source[name].dtype for name in parameter.names if name is not None})
        if self.dtype and not parameter.keeps_dtype and set(found) <= FLOATS:
            return self.dtype
        if len(found) != 1:
            first, *rest = (name for name in parameter.names if name is not None)
            raise MscvtError(
                f"{parameter.key} is made from tensors of different dtypes ({', '.join(found)}), "
                f"{first} and {len(rest)} others",
                hint="--dtype converts all of them to one.",
            )
        return found[0]

    def work(self) -> Iterator[Work]:
        """Parameters, those with experts divided by the rank that holds them."""
        for parameter in self.description.parameters:
            dimensions = parameter.resolved.layout.dimensions
            shares = self.cache.holders(parameter)
            if EXPERT not in dimensions:
                yield parameter, tuple(shares)
                continue
            place = dimensions.index(EXPERT)
            groups: dict[int, list[Index]] = {}
            for index in shares:
                groups.setdefault(index[place], []).append(index)
            for group in groups.values():
                yield parameter, tuple(group)

    def position(self, work: Work) -> tuple[int, int]:
        """Where the first source of the work lies."""
        parameter, shares = work
        for piece in self.cache.pieces(parameter.resolved, shares[0]):
            name = parameter.names[piece.part]
            if name is not None:
                info = self.source[name]
                return info.file, info.offset
        return (-1, -1)

    def content(self, parameter: Parameter, index: Index) -> Content:
        """One share of a parameter, for all ranks that hold it."""
        targets: tuple[Name, ...] = tuple(
            (Rank(tensor, parameter.stage, expert), parameter.part, parameter.key)
            for tensor, expert in self.cache.holders(parameter)[index]
        )
        resolved = parameter.resolved
        key = (id(resolved), index)
        if key not in self.regions:
            self.regions[key] = self.make_regions(parameter, index)
        # Only what this share needs: a source's number is that of its part.
        return Content(
            targets,
            self.dtype_of(parameter),
            self.cache.local_shape(resolved),
            self.regions[key],
            tuple(parameter.names),
        )

    def make_regions(self, parameter: Parameter, index: Index) -> tuple[Region, ...]:
        layout, counts = parameter.resolved.layout, self.description.topology.counts
        pieces = self.cache.pieces(parameter.resolved, index)
        regions, base = [], 0
        for segment in layout.segments:
            sizes = tuple(
                size // counts[layout.cuts[axis]] if axis in layout.cuts else size for axis, size in segment.axes
            )
            copies: tuple[Copy, ...] = tuple(
                copy_of(piece.megatron, piece.huggingface, piece.part)
                for piece in pieces
                if piece.part in segment.parts
            )
            regions.append(Region(base, sizes, copies))
            base += prod(sizes)
        return tuple(regions)

    def files(self) -> Iterator[OutputFile]:
        """One file for each rank that exists, with its tensors in the order of the description."""
        topology = self.description.topology
        by_rank: dict[Rank, dict[Name, tuple[str, tuple[int, ...]]]] = {rank: {} for rank in topology.ranks()}
        for parameter in self.description.parameters:
            what = self.dtype_of(parameter), self.cache.local_shape(parameter.resolved)
            for ranks in self.cache.holders(parameter).values():
                for tensor, expert in ranks:
                    rank = Rank(tensor, parameter.stage, expert)
                    by_rank[rank][rank, parameter.part, parameter.key] = what
        options = topology.options
        for rank, tensors in by_rank.items():
            name = rank_folder(
                rank, options.target_pipeline_parallel_size or 1, options.target_expert_parallel_size or 1
            )
            labels = {"tp": rank.tensor, "pp": rank.pipeline, "ep": rank.expert}
            yield OutputFile(f"{iteration_folder(ITERATION)}/{name}/{SHARD}", tensors, labels)
