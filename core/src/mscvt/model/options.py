"""The options that decide what a Megatron checkpoint looks like, as one table.

The same names serve the command line (`--noop-layers`), the errors and the `args` that a checkpoint
records; a row says where a value is recorded and what a model must have for the option to mean something.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from mscvt.errors import Faults


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for; None means that nothing was, so that a recorded value or the default holds."""

    target_tensor_parallel_size: int | None = None
    target_pipeline_parallel_size: int | None = None
    target_expert_parallel_size: int | None = None
    expert_tensor_parallel_size: int | None = None
    num_layers_per_virtual_pipeline_stage: int | None = None
    num_layer_list: tuple[int, ...] | None = None
    noop_layers: tuple[int, ...] | None = None
    moe_grouped_gemm: bool | None = None
    moe_tp_extend_ep: bool | None = None
    mla_mm_split: bool | None = None
    mtp_num_layers: int | None = None
    schedules_method: str | None = None
    transformer_impl: str | None = None
    num_layers: int | None = None
    first_k_dense_replace: int | None = None
    make_vocab_size_divisible_by: int | None = None


@dataclass(frozen=True, slots=True)
class OptionRow:
    """One option: its default, what a model must have for it, and where `args` records it."""

    name: str
    default: Any
    recorded: tuple[str, ...] = ()
    """Names in `args` that hold the value, the first of which is written."""
    feature: str | None = None
    """The prefix of the roles that a model must have (`moe`), or None for every model."""

    @property
    def flag(self) -> str:
        """How the option is written on the command line."""
        return "--" + self.name.replace("_", "-")


TABLE: tuple[OptionRow, ...] = (
    OptionRow("target_tensor_parallel_size", 1, ("tensor_model_parallel_size",)),
    OptionRow("target_pipeline_parallel_size", 1, ("pipeline_model_parallel_size",)),
    OptionRow("target_expert_parallel_size", 1, ("expert_model_parallel_size",), "moe"),
    OptionRow("expert_tensor_parallel_size", None, ("expert_tensor_parallel_size",), "moe"),
    OptionRow("num_layers_per_virtual_pipeline_stage", None, ("num_layers_per_virtual_pipeline_stage",)),
    OptionRow("num_layer_list", (), ("num_layer_list",)),
    OptionRow("noop_layers", (), ("noop_layers",)),
    OptionRow("moe_grouped_gemm", False, ("moe_grouped_gemm",), "moe"),
    OptionRow("moe_tp_extend_ep", False, ("moe_tp_extend_ep",), "moe"),
    OptionRow("mla_mm_split", False, ("mla_mm_split",), "mla"),
    OptionRow("mtp_num_layers", 0, ("mtp_num_layers",), "mtp"),
    OptionRow("schedules_method", None, ("schedules_method",)),
    OptionRow("transformer_impl", "local", ("transformer_impl",)),
    OptionRow("num_layers", None),
    OptionRow("first_k_dense_replace", None, (), "moe"),
    OptionRow("make_vocab_size_divisible_by", None),
)
ROWS: Mapping[str, OptionRow] = {row.name: row for row in TABLE}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "schedules_method": ("dualpipev",),
    "transformer_impl": ("local", "transformer_engine"),
}
_POSITIVE = (
    "target_tensor_parallel_size",
    "target_pipeline_parallel_size",
    "target_expert_parallel_size",
    "expert_tensor_parallel_size",
    "num_layers_per_virtual_pipeline_stage",
    "num_layers",
    "make_vocab_size_divisible_by",
)
_NOT_NEGATIVE = ("mtp_num_layers", "first_k_dense_replace")


def flag(name: str) -> str:
    """The command-line spelling of an option's name."""
    return ROWS[name].flag


def with_defaults(options: Options) -> Options:
    """Fill in the default of everything that was not asked for; ETP becomes TP."""
    values = {field.name: ROWS[field.name].default for field in fields(options) if getattr(options, field.name) is None}
    filled = replace(options, **values)
    if filled.expert_tensor_parallel_size is None:
        filled = replace(filled, expert_tensor_parallel_size=filled.target_tensor_parallel_size)
    return filled


def check_values(options: Options, faults: Faults) -> None:
    """Add a fault for every value that no model could have."""
    for names, least in ((_POSITIVE, 1), (_NOT_NEGATIVE, 0)):
        for name in names:
            value = getattr(options, name)
            if value is not None and value < least:
                faults.add(
                    f"{flag(name)} {value}: must be at least {least}",
                    hint=f"Give {flag(name)} a number of at least {least}, or leave it out.",
                )
    for name, choices in CHOICES.items():
        value = getattr(options, name)
        if value is not None and value not in choices:
            faults.add(
                f"{flag(name)} {value}: must be one of {', '.join(choices)}",
                hint=f"Choose one of these, or leave out {flag(name)}.",
            )


def check_features(options: Options, features: frozenset[str], model_type: str, faults: Faults) -> None:
    """Add a fault for every option that says something about a part that the model doesn't have."""
    defaults = with_defaults(Options(target_tensor_parallel_size=options.target_tensor_parallel_size))
    for row in TABLE:
        value = getattr(options, row.name)
        if row.feature is None or row.feature in features or value is None:
            continue
        if value != getattr(defaults, row.name):
            shown = "" if value is True else f" {value}"
            faults.add(
                f"{row.flag}{shown}: {model_type} models have no {FEATURES[row.feature]}",
                hint=f"Leave out {row.flag}.",
            )


FEATURES: Mapping[str, str] = {
    "moe": "experts (mixture of experts)",
    "mla": "multi-head latent attention",
    "mtp": "multi-token prediction layers",
}
