"""The keys and layouts that MindSpeed-LLM's modules have of their own."""

from __future__ import annotations

from mscvt.dialects import rule_blocks
from mscvt.dialects.options import Options
from mscvt.dialects.rule_blocks import grouped_experts, numbered_experts, single_experts
from mscvt.layout.rules import TENSOR, Rule, Source, whole
from mscvt.records import dataclass


def _some_rows(key: str, role: str, rows: str, every_row: str) -> Rule:
    """Some rows of every head of an up projection, as a tensor of their own."""
    return Rule(key, rows, (Source(role, every_row),), {"head": TENSOR})


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks(rule_blocks.Blocks):
    """The rules of blocks under some options."""

    options: Options

    def latent_attention(self, module: str, roles: str) -> tuple[Rule, ...]:
        """The compressions are whole on every rank, the up projections are cut by heads."""
        query, key_value, heads = "(head qk) q_rank", "(head kv) kv_rank", {"head": TENSOR}
        if self.options.mla_mm_split:
            up: tuple[Rule, ...] = (
                _some_rows(f"{module}linear_qk_nope.weight", f"{roles}.q_up", "(head qk[:nope]) q_rank", query),
                _some_rows(f"{module}linear_qk_rope.weight", f"{roles}.q_up", "(head qk[nope:]) q_rank", query),
                _some_rows(f"{module}linear_kv_nope.weight", f"{roles}.kv_up", "(head kv[:nope]) kv_rank", key_value),
                _some_rows(f"{module}linear_v.weight", f"{roles}.kv_up", "(head kv[nope:]) kv_rank", key_value),
            )
        else:
            up = (
                whole(f"{module}linear_q_up_proj.weight", f"{roles}.q_up", query, cuts=heads),
                whole(f"{module}linear_kv_up_proj.weight", f"{roles}.kv_up", key_value, cuts=heads),
            )
        return (
            Rule(
                f"{module}linear_qkv.weight",
                "down hidden",
                (
                    Source(f"{roles}.q_down", "down[:q_down] hidden"),
                    Source(f"{roles}.kv_down", "down[q_down:] hidden"),
                ),
            ),
            whole(f"{module}q_layernorm.weight", f"{roles}.q_norm", "q_rank"),
            whole(f"{module}kv_layernorm.weight", f"{roles}.kv_norm", "kv_rank"),
            whole(f"{module}linear_proj.weight", f"{roles}.proj", "hidden (head value)", cuts=heads),
            *up,
        )

    def indexer(self, module: str, roles: str) -> tuple[Rule, ...]:
        """The indexer of sparse attention is the same on every rank; its norm is trained in float32."""
        return (
            whole(f"{module}wq_b.weight", f"{roles}.q", "(index_n_heads index_head_dim) q_rank"),
            whole(f"{module}wk.weight", f"{roles}.k", "index_head_dim hidden"),
            whole(f"{module}k_norm.weight", f"{roles}.k_norm", "index_head_dim", keeps_dtype=True),
            whole(f"{module}k_norm.bias", f"{roles}.k_norm_bias", "index_head_dim", keeps_dtype=True),
            whole(f"{module}weights_proj.weight", f"{roles}.weights", "index_n_heads hidden"),
        )

    def experts(self) -> tuple[Rule, ...]:
        """The experts, one by one or a rank's together."""
        if not self.options.moe_grouped_gemm:
            return single_experts()
        return numbered_experts() if self.options.transformer_impl == "transformer_engine" else grouped_experts()
