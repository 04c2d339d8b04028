"""The keys and layouts of MindSpeed-LLM's modules, block by block.

Sources: MindSpeed-LLM `convert_ckpt_v2`, megatron-core `gpt_layer_specs` and `GroupedMLP`.
"""

from __future__ import annotations

from dataclasses import dataclass

from mscvt.dialects.mindspeed.options import Options
from mscvt.layout.rules import EXPERT, EXPERT_TENSOR, PADDING, TENSOR, Rule, Source, whole


def _gated(
    prefix: str, roles: str, ffn: str, dimension: str, *, lead: str = "", key: str = "weight"
) -> tuple[Rule, ...]:
    """fc1 is [gate; up], each cut by rows, fc2 is cut by columns; `lead` are axes that the keys hold."""
    cuts = {ffn: dimension, **({"expert": EXPERT} if lead else {})}
    return (
        Rule(
            f"{prefix}linear_fc1.{key}",
            f"{lead}(half {ffn}) hidden",
            (
                Source(f"{roles}.gate", f"{lead}(half[0] {ffn}) hidden"),
                Source(f"{roles}.up", f"{lead}(half[1] {ffn}) hidden"),
            ),
            cuts,
        ),
        whole(f"{prefix}linear_fc1.{key}", f"{roles}.gate_up", f"{lead}(half {ffn}) hidden", cuts=cuts),
        whole(f"{prefix}linear_fc2.{key}", f"{roles}.down", f"{lead}hidden {ffn}", cuts=cuts),
    )


def _grouped_experts() -> tuple[Rule, ...]:
    """All experts of a rank in one tensor, transposed; the shape of `weight1` hides its memory order."""
    cuts = {"expert": EXPERT, "moe_ffn": EXPERT_TENSOR}
    fc1 = ("mlp.experts.weight1", "expert hidden half moe_ffn")
    halves = (
        Source("moe.expert.gate", "expert (half[0] moe_ffn) hidden"),
        Source("moe.expert.up", "expert (half[1] moe_ffn) hidden"),
    )
    both = (Source("moe.expert.gate_up", "expert (half moe_ffn) hidden"),)
    shape = "hidden (expert half moe_ffn)"
    return (
        Rule(*fc1, halves, cuts, shape=shape),
        Rule(*fc1, both, cuts, shape=shape),
        Rule(
            "mlp.experts.weight2",
            "(expert moe_ffn) hidden",
            (Source("moe.expert.down", "expert hidden moe_ffn"),),
            cuts,
        ),
    )


def _some_rows(key: str, role: str, rows: str, every_row: str) -> Rule:
    """Some rows of every head of an up projection, as a tensor of their own."""
    return Rule(key, rows, (Source(role, every_row),), {"head": TENSOR})


@dataclass(frozen=True, slots=True)
class Blocks:
    """The rules of blocks under some options."""

    options: Options

    def attention(self, module: str, roles: str) -> tuple[Rule, ...]:
        """Queries, keys and values of a kv group lie together; cut by groups."""
        queries, keys, values = "slot[:queries]", "slot[queries]", "slot[queries + 1]"
        cuts = {"group": TENSOR}
        weight = (f"{module}linear_qkv.weight", "(group slot channel) hidden")
        return (
            Rule(
                *weight,
                (
                    Source(f"{roles}.q", f"(group {queries} channel) hidden"),
                    Source(f"{roles}.k", f"(group {keys} channel) hidden"),
                    Source(f"{roles}.v", f"(group {values} channel) hidden"),
                ),
                cuts,
            ),
            Rule(
                *weight,
                (
                    Source(
                        f"{roles}.qkv",
                        f"(group {queries} channel) hidden | (group {keys} channel) hidden"
                        f" | (group {values} channel) hidden",
                    ),
                ),
                cuts,
            ),
            Rule(
                f"{module}linear_qkv.bias",
                "(group slot channel)",
                (
                    Source(f"{roles}.q_bias", f"(group {queries} channel)"),
                    Source(f"{roles}.k_bias", f"(group {keys} channel)"),
                    Source(f"{roles}.v_bias", f"(group {values} channel)"),
                ),
                cuts,
            ),
            whole(f"{module}q_layernorm.weight", f"{roles}.q_norm", "channel"),
            whole(f"{module}k_layernorm.weight", f"{roles}.k_norm", "channel"),
            whole(f"{module}linear_proj.weight", f"{roles}.proj", "hidden (head channel)", cuts={"head": TENSOR}),
            whole(f"{module}linear_proj.bias", f"{roles}.proj_bias", "hidden"),
        )

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

    def gated_mlp(self, module: str, roles: str, ffn: str) -> tuple[Rule, ...]:
        """A dense gated MLP."""
        return _gated(module, roles, ffn, TENSOR)

    def plain_mlp(self, module: str, roles: str, ffn: str) -> tuple[Rule, ...]:
        """An MLP without a gate."""
        return (whole(f"{module}linear_fc1.weight", f"{roles}.up", f"{ffn} hidden", cuts={ffn: TENSOR}),)

    def experts(self) -> tuple[Rule, ...]:
        """The experts, one by one or a rank's together."""
        if not self.options.moe_grouped_gemm:
            module, key = "mlp.experts.local_experts.{expert}.", "weight"
        elif self.options.transformer_impl == "transformer_engine":
            module, key = "mlp.experts.", "weight{expert}"
        else:
            return _grouped_experts()
        return _gated(module, "moe.expert", "moe_ffn", EXPERT_TENSOR, lead="expert ", key=key)

    def vocabulary(self, key: str, role: str, columns: str) -> Rule:
        """Rows of the vocabulary, filled up with zeros to the padded size."""
        sources = (Source(role, f"vocab[:real_vocab]{columns}"), Source(PADDING, f"vocab[real_vocab:]{columns}"))
        return Rule(key, f"vocab{columns}", sources, {"vocab": TENSOR})
