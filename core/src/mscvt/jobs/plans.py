"""Plans of models, in every direction."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from fnmatch import translate

from mscvt.description.description import Description
from mscvt.formats.huggingface.writer import file_name
from mscvt.formats.megatron_torch.paths import SHARD, iteration_folder, rank_folder
from mscvt.formats.peft.names import WEIGHTS
from mscvt.parallel.grid import Rank, ShardName
from mscvt.plan.by_huggingface import ByHuggingFace
from mscvt.plan.by_shard import ByShard
from mscvt.plan.contents import Plan
from mscvt.plan.files import SHARD_BYTES, by_rank, by_size
from mscvt.plan.joined import Joined
from mscvt.plan.planner import NameFiles, Tolerated, Words, check_source, make_plan
from mscvt.plan.same import Same
from mscvt.tensors.info import TensorInfo

_HUGGINGFACE = Words(
    message="the checkpoint is not what the model needs",
    missing="Is the download complete (`mscvt check` looks), and the model type right?",
    unknown="no rule takes",
    unknown_hint="A tensor that nothing takes would be lost; is the model type right?",
    shape="config.json",
    shape_hint="The weights and config.json belong to different models.",
)
_MEGATRON = Words(
    message="the checkpoint is not what its args describe",
    missing="Do the checkpoint's args describe it, and is it whole?",
    unknown="no rule knows",
    unknown_hint="A tensor that nothing takes would be lost.",
    shape="the checkpoint's args",
    shape_hint="Where it is the vocabulary, padded and not recorded so: --make-vocab-size-divisible-by N says how.",
)


def plan_to_megatron(
    description: Description,
    source: Mapping[str, TensorInfo],
    *,
    iteration: int | str = 1,
    is_distributed: bool = False,
    left_out: Mapping[str, str] | None = None,
    dtype: str | None = None,
) -> Plan:
    """Plan all shards of a Megatron checkpoint.

    Args:
        description: The model.
        source: Every tensor of the Hugging Face checkpoint.
        iteration: What the shards are said to be of.
        is_distributed: Whether they are files of a bounded size, and not one for each rank.
        left_out: Pattern (`fnmatch`) of source tensors that no rule takes and that are left out -> why.
        dtype: Convert floating-point tensors to this dtype; None keeps each one's own.

    Raises:
        MscvtError: Where the source lacks a tensor, has one that no rule takes, or one of another shape or dtype than
            the model's; all of them at once.
    """
    return make_plan(
        ByShard(description),
        source,
        _files(description, iteration, is_distributed=is_distributed),
        _HUGGINGFACE,
        tolerated=_tolerated(description, left_out),
        dtype=dtype,
    )


def check_tensors(
    description: Description, source: Mapping[str, TensorInfo], left_out: Mapping[str, str] | None = None
) -> None:
    """See that a Hugging Face checkpoint is what a model needs, without a plan.

    Raises:
        MscvtError: As `plan_to_megatron`.
    """
    check_source(ByShard(description), source, _HUGGINGFACE, _tolerated(description, left_out))


def _tolerated(description: Description, left_out: Mapping[str, str] | None) -> Tolerated:
    """What a Hugging Face checkpoint may hold besides what is read."""
    patterns = [(re.compile(translate(pattern)), why) for pattern, why in (left_out or {}).items()]
    return Tolerated(
        repeats={name: alias.of for name, alias in description.aliases.items()},
        left_out=description.left_out,
        passed_over=lambda name: next((why for pattern, why in patterns if pattern.match(name)), None),
    )


def plan_same(
    description: Description,
    source: Mapping[str, TensorInfo],
    *,
    left_out: Mapping[str, str] | None = None,
    dtype: str | None = None,
) -> Plan:
    """Plan all files of a Hugging Face checkpoint from tensors that have its names already.

    Args:
        description: The model.
        source: Every tensor.
        left_out: Pattern (`fnmatch`) of source tensors that no rule takes and that are left out -> why.
        dtype: Convert floating-point tensors to this dtype; None keeps each one's own.

    Raises:
        MscvtError: As `plan_to_megatron`.
    """
    return make_plan(
        Same(description, source.keys()),
        source,
        lambda tensors: by_size(tensors, file_name),
        _HUGGINGFACE,
        tolerated=_tolerated(description, left_out),
        dtype=dtype,
    )


def plan_reshard(
    source_model: Description,
    target_model: Description,
    source: Mapping[ShardName, TensorInfo],
    *,
    iteration: int | str = 1,
    is_distributed: bool = False,
    dtype: str | None = None,
    replicas: bool = True,
) -> Plan:
    """Plan all shards of a Megatron checkpoint from those of another one.

    Args:
        source_model: The model as the source has it.
        target_model: The same model as it is wanted; it may lack layers of the source.
        source: Every tensor of the source.
        iteration: What the shards are said to be of.
        is_distributed: Whether they are files of a bounded size, and not one for each rank.
        dtype: Convert floating-point tensors to this dtype; None keeps each one's own.
        replicas: Whether what several ranks hold must be equal.

    Raises:
        MscvtError: As `plan_to_huggingface`.
    """
    joined = Joined(source_model, target_model)
    files = _files(target_model, iteration, is_distributed=is_distributed)
    return make_plan(joined, source, files, _MEGATRON, dtype=dtype, replicas=replicas)


def _files(description: Description, iteration: int | str, *, is_distributed: bool) -> NameFiles:
    grid, folder = description.topology.grid, iteration_folder(iteration)
    if is_distributed:
        return lambda tensors: by_size(tensors, lambda number, count: f"{folder}/__0_{number - 1}.distcp")

    def path_of(rank: Rank) -> str:
        return f"{folder}/{rank_folder(rank, grid.pipeline, grid.expert)}/{SHARD}"

    return lambda tensors: by_rank(tensors, grid, path_of)


def plan_to_huggingface(
    description: Description,
    source: Mapping[ShardName, TensorInfo],
    *,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    replicas: bool = True,
) -> Plan:
    """Plan all files of a Hugging Face checkpoint.

    Args:
        description: The model.
        source: Every tensor of the Megatron checkpoint.
        dtype: Convert floating-point tensors to this dtype; None keeps each one's own.
        shard_bytes: The largest size of one file's tensors; a larger tensor gets a file of its own.
        replicas: Whether what several ranks hold must be equal.

    Raises:
        MscvtError: Where a rank lacks a tensor, has one that no rule knows, or one of another shape or dtype;
            all of them at once.
    """
    return make_plan(
        ByHuggingFace(description),
        source,
        lambda tensors: by_size(tensors, file_name, shard_bytes),
        _MEGATRON,
        dtype=dtype,
        replicas=replicas,
    )


def plan_to_adapter(
    description: Description,
    source: Mapping[ShardName, TensorInfo],
    *,
    dtype: str | None = None,
    replicas: bool = True,
) -> Plan:
    """Plan the one file of an adapter.

    Args:
        description: The factors.
        source: Every factor of the Megatron checkpoint.
        dtype: Convert the factors to this dtype; None keeps each one's own.
        replicas: Whether what several ranks hold must be equal.

    Raises:
        MscvtError: As `plan_to_huggingface`.
    """
    return make_plan(
        ByHuggingFace(description),
        source,
        lambda tensors: by_size(tensors, lambda number, count: WEIGHTS, sys.maxsize),
        _MEGATRON,
        dtype=dtype,
        replicas=replicas,
    )
