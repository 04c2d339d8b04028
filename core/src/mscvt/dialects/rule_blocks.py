"""The keys and layouts of megatron-core's modules, block by block, which all stacks that build on it share.

Sources: megatron-core `gpt_layer_specs` and `GroupedMLP`, MindSpeed-LLM `convert_ckpt_v2`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from mscvt.layout.rules import EXPERT, EXPERT_TENSOR, PADDING, TENSOR, Rule, Source, whole
from mscvt.records import dataclass


def gated(
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


def grouped_experts() -> tuple[Rule, ...]:
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


def single_experts() -> tuple[Rule, ...]:
    """Experts one by one."""
    return gated("mlp.experts.local_experts.{expert}.", "moe.expert", "moe_ffn", EXPERT_TENSOR, lead="expert ")


def numbered_experts() -> tuple[Rule, ...]:
    """Experts of a rank in one module, a tensor each."""
    return gated("mlp.experts.", "moe.expert", "moe_ffn", EXPERT_TENSOR, lead="expert ", key="weight{expert}")


@dataclass(frozen=True, slots=True)
class Blocks:
    """The rules of blocks that are alike everywhere."""

    dialect: str

    group_cuts: Mapping[str, str] = field(default_factory=lambda: {"group": TENSOR})
    """How queries, keys and values are cut."""

    def spelled(self, key: str) -> str:
        """A key of a family's own tensor: as the family says it."""
        return key

    def attention(self, module: str, roles: str) -> tuple[Rule, ...]:
        """Queries, keys and values of a kv group lie together; cut by groups."""
        queries, keys, values = "slot[:queries]", "slot[queries]", "slot[queries + 1]"
        cuts = self.group_cuts
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

    def gated_mlp(self, module: str, roles: str, ffn: str) -> tuple[Rule, ...]:
        """A dense gated MLP."""
        return gated(module, roles, ffn, TENSOR)

    def mlp_biases(self, module: str, roles: str, ffn: str) -> tuple[Rule, ...]:
        """The biases of a dense MLP: fc1's is cut as its rows are, fc2's is added to the sum of all ranks."""
        halves = Source(f"{roles}.gate_bias", f"(half[0] {ffn})"), Source(f"{roles}.up_bias", f"(half[1] {ffn})")
        return (
            Rule(f"{module}linear_fc1.bias", f"(half {ffn})", halves, {ffn: TENSOR}),
            whole(f"{module}linear_fc1.bias", f"{roles}.gate_up_bias", f"(half {ffn})", cuts={ffn: TENSOR}),
            whole(f"{module}linear_fc2.bias", f"{roles}.down_bias", "hidden"),
        )

    def plain_mlp(self, module: str, roles: str, ffn: str) -> tuple[Rule, ...]:
        """What an MLP without a gate has in the place of gate and up."""
        return (
            whole(f"{module}linear_fc1.weight", f"{roles}.up", f"{ffn} hidden", cuts={ffn: TENSOR}),
            whole(f"{module}linear_fc1.bias", f"{roles}.up_bias", ffn, cuts={ffn: TENSOR}),
        )

    def vocabulary(self, key: str, role: str, columns: str) -> Rule:
        """Rows of the vocabulary, filled up with zeros to the padded size."""
        sources = (Source(role, f"vocab[:real_vocab]{columns}"), Source(PADDING, f"vocab[real_vocab:]{columns}"))
        return Rule(key, f"vocab{columns}", sources, {"vocab": TENSOR})
