"""Planning Megatron -> Hugging Face."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from mscvt.description.description import Description
from mscvt.errors import Faults
from mscvt.parallel.topology import MegatronName, Rank
from mscvt.plan.contents import Content, Copy, Name, OutputFile, Plan, Region, Unit, copy_of, shown
from mscvt.plan.pieces import Index, PieceCache
from mscvt.plan.proof import Use, huggingface_shape, listed, prove_layouts, signature, uses_by_name
from mscvt.tensors.info import FLOATS, ITEM_SIZES, TensorInfo

SHARD_BYTES = 5_000_000_000
"""The largest file that transformers writes by default."""

Template = tuple[tuple[Region, ...], tuple[tuple[int, Index], ...]]
"""Regions, and for each of their sources: which use it belongs to, and which share of it."""


def plan_to_huggingface(
    description: Description,
    source: Mapping[MegatronName, TensorInfo],
    *,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Plan:
    """Plan all files of a Hugging Face checkpoint.

    Args:
        description: The model.
        source: Every tensor of the Megatron checkpoint.
        dtype: Convert floating-point tensors to this dtype; None keeps each one's own.
        shard_bytes: The largest size of one file's tensors; a larger tensor gets a file of its own.

    Raises:
        MscvtError: Where a rank lacks a tensor, has one that no rule knows, or one of another shape or dtype;
            all of them at once.
    """
    planner = _Planner(description, source, dtype)
    planner.prove()
    order = sorted(planner.uses, key=planner.position)

    def units() -> Iterator[Unit]:
        for number, name in enumerate(order):
            yield Unit(number, (planner.content(name),))

    return Plan(tuple(planner.files(shard_bytes)), len(order), units, tuple(planner.repeated_shares()))


class _Planner:
    def __init__(self, description: Description, source: Mapping[MegatronName, TensorInfo], dtype: str | None) -> None:
        self.description, self.source, self.dtype = description, source, dtype
        self.cache = PieceCache(description.topology)
        self.uses = uses_by_name(description.parameters)
        self.templates: dict[tuple[tuple[int, int], ...], Template] = {}
        self.repeated: dict[str, list[str]] = {}
        for name, alias in sorted(description.aliases.items()):
            if alias.is_written:
                self.repeated.setdefault(alias.of, []).append(name)

    def prove(self) -> None:
        faults = Faults()
        expected: dict[MegatronName, tuple[int, ...]] = {}
        for parameter in self.description.parameters:
            shape = self.cache.local_shape(parameter.resolved)
            for ranks in self.cache.holders(parameter).values():
                for tensor, expert in ranks:
                    rank = Rank(tensor, parameter.stage, expert)
                    expected[rank, parameter.part, parameter.key] = shape
        for name in listed(map(shown, expected.keys() - self.source.keys())):
            faults.add(f"missing: {name}", hint="Do the checkpoint's args describe it, and is it whole?")
        for name in listed(map(shown, self.source.keys() - expected.keys())):
            faults.add(f"no rule knows: {name}", hint="A tensor that nothing takes would be lost.")
        for share, shape in expected.items():
            if share in self.source and self.source[share].shape != shape:
                faults.add(
                    f"{shown(share)} has the shape {list(self.source[share].shape)}, expected {list(shape)} "
                    "from the checkpoint's args"
                )
        faults.raise_if_any("the checkpoint is not what its args describe")
        prove_layouts(self.description, self.uses, self.cache, faults)
        for name in self.uses:
            found = self.dtypes(name)
            if len(found) != 1:
                faults.add(
                    f"{name} is made from tensors of different dtypes ({', '.join(sorted(found))})",
                    hint="--dtype converts all of them to one.",
                )
        faults.raise_if_any("the plan does not hold")

    def source_names(self, name: str) -> list[MegatronName]:
        """The shares that a Hugging Face tensor is read from: of replicas, the first rank's."""
        uses = self.uses[name]
        return [self.share(uses[use], index) for use, index in self.template(name)[1]]

    def share(self, use: Use, index: Index) -> MegatronName:
        parameter = use[0]
        tensor, expert = self.cache.holders(parameter)[index][0]
        return Rank(tensor, parameter.stage, expert), parameter.part, parameter.key

    def repeated_shares(self) -> Iterator[tuple[Name, Name, int]]:
        """Shares that must equal others, because they hold the same Hugging Face tensor (tied head, MTP)."""
        kept = {parameter.names: parameter for parameter in self.description.parameters if not parameter.is_copy}
        for parameter in self.description.parameters:
            if parameter.is_copy:
                for index in self.cache.holders(parameter):
                    share = self.share((kept[parameter.names], 0), index)
                    yield share, self.share((parameter, 0), index), self.source[share].numel

    def template(self, name: str) -> Template:
        uses = self.uses[name]
        mark = signature(uses)
        if mark not in self.templates:
            self.templates[mark] = self.make_template(uses)
        return self.templates[mark]

    def make_template(self, uses: Sequence[Use]) -> Template:
        copies: list[Copy] = []
        sources: list[tuple[int, Index]] = []
        sizes: tuple[int, ...] = ()
        for number, (parameter, part) in enumerate(uses):
            for index, piece in self.cache.of_part(parameter, part):
                if piece.huggingface is not None:
                    sizes = tuple(run.size for run in piece.huggingface.runs)
                    copies.append(copy_of(piece.huggingface, piece.megatron, len(sources)))
                    sources.append((number, index))
        return (Region(0, sizes, tuple(copies)),), tuple(sources)

    def dtypes(self, name: str) -> set[str]:
        """The dtype that a tensor gets; more than one where its sources differ and none was asked for."""
        found = {self.source[share].dtype for share in self.source_names(name)}
        keeps = any(parameter.keeps_dtype for parameter, _ in self.uses[name])
        return {self.dtype} if self.dtype and not keeps and found <= FLOATS else found

    def position(self, name: str) -> tuple[int, int]:
        """Where the first source of a tensor lies, in bytes."""
        (region, *_), _ = self.template(name)
        info = self.source[self.source_names(name)[0]]
        return info.file, info.offset + region.copies[0].offset * ITEM_SIZES[info.dtype]

    def content(self, name: str) -> Content:
        (dtype,) = self.dtypes(name)
        targets: tuple[Name, ...] = (name, *self.repeated.get(name, ()))
        return Content(
            targets,
            dtype,
            huggingface_shape(self.uses[name][0]),
            self.template(name)[0],
            tuple(self.source_names(name)),
        )

    def files(self, limit: int) -> Iterator[OutputFile]:
        """Tensors in the order of the description, a new file whenever one is full."""
        groups: list[dict[Name, tuple[str, tuple[int, ...]]]] = [{}]
        filled = 0
        for name in self.uses:
            (dtype,) = self.dtypes(name)
            shape = huggingface_shape(self.uses[name][0])
            nbytes = prod(shape) * ITEM_SIZES[dtype]
            for target in (name, *self.repeated.get(name, ())):
                if filled and filled + nbytes > limit:
                    groups.append({})
                    filled = 0
                groups[-1][target] = dtype, shape
                filled += nbytes
        for number, tensors in enumerate(groups, 1):
            yield OutputFile(f"model-{number:05d}-of-{len(groups):05d}.safetensors", tensors, {"file": number})
