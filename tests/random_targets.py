"""Other layouts of a random model: any dialect, topology and options that its sizes allow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from mscvt.dialects.options import Options
from random_models import WITH_EXPERTS, WITH_LATENT_ATTENTION, Case
from reference_placement import kept_layers

WITHOUT_NVIDIAS = ("deepseek32",)
"""Model types that megatron-core has no modules for."""
_REDUCED = ("num_layers", "first_k_dense_replace")


@st.composite
def layouts(draw: st.DrawFn, case: Case) -> tuple[Options, Options, frozenset[str]]:
    """The options of another layout; what is asked for to get there from the case's; and what is taken away."""
    nvidias = case.model_type not in WITHOUT_NVIDIAS and draw(st.booleans())
    dialect = "megatron" if nvidias else "mindspeed"
    tensor = draw(st.sampled_from([size for size in range(1, case.tp + 1) if case.tp % size == 0]))
    asked: dict[str, Any] = {"dialect": dialect, "target_tensor_parallel_size": tensor}
    asked |= _stages(draw, len(kept_layers(case)), case.mtp if nvidias else 0, nvidias)
    if case.mtp:
        asked["mtp_num_layers"] = case.mtp
    latent = case.model_type in WITH_LATENT_ATTENTION
    if nvidias:
        asked["megatron_core_version"] = "0.18" if latent else draw(st.sampled_from(["0.14", "0.18"]))
        asked["transformer_impl"] = (
            "transformer_engine" if latent else draw(st.sampled_from(["local", "transformer_engine"]))
        )
        asked["make_vocab_size_divisible_by"] = draw(st.integers(1, 5))
    else:
        asked["transformer_impl"] = "local"
        if multiple := case.options.get("make_vocab_size_divisible_by"):
            asked["make_vocab_size_divisible_by"] = multiple
    if case.model_type in WITH_EXPERTS:
        experts = case.config.get("num_experts") or case.config["n_routed_experts"]
        asked["target_expert_parallel_size"] = draw(st.sampled_from([n for n in range(1, 5) if experts % n == 0]))
        asked["expert_tensor_parallel_size"] = draw(st.sampled_from([1, tensor])) if nvidias else tensor
        asked["moe_grouped_gemm"] = draw(st.booleans()) or None
    removed = case.options.keys() - asked.keys() - {*_REDUCED}
    if asked.get("moe_grouped_gemm", False) is None and case.options.get("moe_grouped_gemm"):
        removed |= {"moe_grouped_gemm"}
    options = Options(**asked)
    reduced = {name: case.options[name] for name in _REDUCED if name in case.options}
    return replace(options, **reduced), options, frozenset(removed)


def _stages(draw: st.DrawFn, layers: int, mtp: int, nvidias: bool) -> dict[str, Any]:
    """So many layers on some stages, in any proportion."""
    stages = draw(st.integers(1, 4))
    marks = sorted(draw(st.lists(st.integers(0, layers), min_size=stages - 1, max_size=stages - 1)))
    counts = [end - start for start, end in zip([0, *marks], [*marks, layers], strict=True)]
    found: dict[str, Any] = {"target_pipeline_parallel_size": stages}
    if not nvidias:
        return found | {"num_layer_list": tuple(counts)}
    letters = ["t" * count for count in counts]
    letters[0] = "E" + letters[0]
    letters[-1] += "m" * mtp + "L"
    return found | {"pipeline_model_parallel_layout": "|".join(letters)}
