"""The parallel options that every family is tested under, as far as it has what they speak of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mscvt.dialects.options import MEGATRON, TORCH_DIST, Options


def _options(tp: int = 1, pp: int = 1, ep: int | None = None, **others: Any) -> Options:
    return Options(
        target_tensor_parallel_size=tp, target_pipeline_parallel_size=pp, target_expert_parallel_size=ep, **others
    )


STANDARD: Mapping[str, tuple[str | None, Options]] = {
    "one_rank": (None, _options()),
    "megatron_tp2_pp2": (None, _options(tp=2, pp=2, dialect=MEGATRON)),
    "megatron_tp2_ep2_grouped": ("moe", _options(tp=2, ep=2, dialect=MEGATRON, moe_grouped_gemm=True)),
    "megatron_mtp2": ("mtp", _options(dialect=MEGATRON, mtp_num_layers=2)),
    "megatron_distributed": (None, _options(dialect=MEGATRON, ckpt_format=TORCH_DIST)),
    "tp2": (None, _options(tp=2)),
    "tp2_pp2_padded_vocabulary": (None, _options(tp=2, pp=2, make_vocab_size_divisible_by=8)),
    "pp4": (None, _options(pp=4)),
    "pp2_virtual_stages": (None, _options(pp=2, num_layers_per_virtual_pipeline_stage=1)),
    "pp2_noop": (None, _options(pp=2, noop_layers=(0, 5))),
    "pp2_layer_list": (None, _options(pp=2, num_layer_list=(1, 3))),
    "pp2_dualpipev": (None, _options(pp=2, schedules_method="dualpipev")),
    "tp2_transformer_engine": (None, _options(tp=2, transformer_impl="transformer_engine")),
    "three_layers": (None, _options(num_layers=3)),
    "tp2_ep2": ("moe", _options(tp=2, ep=2)),
    "ep4_grouped": ("moe", _options(ep=4, moe_grouped_gemm=True)),
    "tp2_pp2_ep2_grouped": ("moe", _options(tp=2, pp=2, ep=2, moe_grouped_gemm=True)),
    "tp2_ep2_etp1": ("moe", _options(tp=2, ep=2, expert_tensor_parallel_size=1, moe_grouped_gemm=True)),
    "tp2_ep2_extended": ("moe", _options(tp=2, ep=2, moe_tp_extend_ep=True)),
    "tp2_ep2_extended_grouped": ("moe", _options(tp=2, ep=2, moe_tp_extend_ep=True, moe_grouped_gemm=True)),
    "tp2_ep2_transformer_engine_grouped": (
        "moe",
        _options(tp=2, ep=2, transformer_impl="transformer_engine", moe_grouped_gemm=True),
    ),
    "tp2_mm_split": ("mla", _options(tp=2, mla_mm_split=True)),
    "mtp1": ("mtp", _options(mtp_num_layers=1)),
    "tp2_pp2_mtp2": ("mtp", _options(tp=2, pp=2, mtp_num_layers=2)),
    "pp2_dualpipev_mtp2": ("mtp", _options(pp=2, schedules_method="dualpipev", mtp_num_layers=2)),
}
"""Name of the case -> the feature that a family must have for it, or None, and the options."""
