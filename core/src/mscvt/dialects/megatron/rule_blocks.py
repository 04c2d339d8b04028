"""The keys and layouts of latent attention and of experts in megatron-core's own specs."""

from __future__ import annotations

from mscvt.dialects import rule_blocks
from mscvt.dialects.megatron.versions import (
    CONVOLUTION_MODULES,
    LEGACY_EXPERTS,
    SEPARATE_LATENT_NORMS,
    WHOLE_COMPRESSIONS,
    minor,
)
from mscvt.dialects.options import Options
from mscvt.dialects.rule_blocks import grouped_experts, numbered_experts, single_experts
from mscvt.layout.rules import TENSOR, Rule, whole
from mscvt.records import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks(rule_blocks.Blocks):
    """The rules of blocks under some options."""

    options: Options

    def spelled(self, key: str) -> str:
        """Since 0.19 a convolution is no module: its parameters are the mixer's (the mixer of megatron/core/ssm)."""
        is_module = minor(self.options) <= CONVOLUTION_MODULES
        return key if is_module else key.replace("mixer.conv1d.", "mixer.conv1d_")

    def latent_attention(self, module: str, roles: str) -> tuple[Rule, ...]:
        """Compressions and up projections are modules of their own; norms are in the up projections.

        Source: megatron/core/models/gpt/gpt_layer_specs.py and transformer/multi_latent_attention.py.
        """
        version = minor(self.options)
        heads, is_cut = {"head": TENSOR}, version < WHOLE_COMPRESSIONS
        apart = version <= SEPARATE_LATENT_NORMS
        q_norm = "q_layernorm.weight" if apart else "linear_q_up_proj.layer_norm_weight"
        kv_norm = "kv_layernorm.weight" if apart else "linear_kv_up_proj.layer_norm_weight"
        cuts = {name: {name: TENSOR} if is_cut else None for name in ("q_down", "kv_down")}
        return (
            whole(f"{module}linear_q_down_proj.weight", f"{roles}.q_down", "q_down hidden", cuts=cuts["q_down"]),
            whole(f"{module}{q_norm}", f"{roles}.q_norm", "q_rank"),
            whole(f"{module}linear_q_up_proj.weight", f"{roles}.q_up", "(head qk) q_rank", cuts=heads),
            whole(f"{module}linear_kv_down_proj.weight", f"{roles}.kv_down", "kv_down hidden", cuts=cuts["kv_down"]),
            whole(f"{module}{kv_norm}", f"{roles}.kv_norm", "kv_rank"),
            whole(f"{module}linear_kv_up_proj.weight", f"{roles}.kv_up", "(head kv) kv_rank", cuts=heads),
            whole(f"{module}linear_proj.weight", f"{roles}.proj", "hidden (head value)", cuts=heads),
        )

    def whole_query(self, module: str, roles: str) -> Rule:
        """The query of latent attention where it is not compressed."""
        return whole(f"{module}linear_q_proj.weight", f"{roles}.q_down", "(head qk) hidden", cuts={"head": TENSOR})

    def experts(self) -> tuple[Rule, ...]:
        """The experts, one by one or a rank's together; since 0.17 the local spec has them one by one in any case."""
        options = self.options
        is_fused = options.transformer_impl == "transformer_engine"
        if options.moe_grouped_gemm and is_fused and not options.moe_use_legacy_grouped_gemm:
            return numbered_experts()
        if options.moe_grouped_gemm and minor(options) <= LEGACY_EXPERTS:
            return grouped_experts()
        return single_experts()
