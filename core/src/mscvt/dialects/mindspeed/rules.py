"""The keys and layouts of MindSpeed-LLM's `local` and `transformer_engine` modules.

Sources: MindSpeed-LLM `convert_ckpt_v2`, megatron-core `gpt_layer_specs` and `GroupedMLP`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from mscvt.dialects.mindspeed.options import Options
from mscvt.layout.rules import PADDING, Part, Rows, Rule, whole
from mscvt.model.family import Hyperparameters
from mscvt.parallel.topology import EXPERT, EXPERT_TENSOR, TENSOR

AXIS_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "group": "kv groups (num_key_value_heads)",
        "head": "attention heads (num_attention_heads)",
        "ffn": "FFN rows (intermediate_size)",
        "moe_ffn": "FFN rows of an expert (moe_intermediate_size)",
        "shared_ffn": "FFN rows of the shared experts",
        "expert": "experts",
        "vocab": "vocabulary rows (vocab_size)",
        "hidden": "hidden rows (hidden_size)",
        "joined_out": "hidden rows (hidden_size)",
    }
)
"""How an error names the size of a cut axis."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One naming scheme: rules for layers, for the ends of the model and for MTP, and the prefixes of keys."""

    name: str
    layer: tuple[tuple[Rule, ...], ...]
    """Tables in order: a rule holds only for roles that no table before its own has taken."""
    first: tuple[Rule, ...]
    last: tuple[Rule, ...]
    mtp: tuple[Rule, ...]
    decoder_prefix: str = "decoder.layers.{layer}."
    mtp_prefix: str = "mtp.layers.{layer}.transformer_layer."


def axis_sizes(h: Hyperparameters) -> dict[str, int]:
    """The sizes of all axes that the rules below speak of, as far as the model has them."""
    heads = h["num_attention_heads"]
    sizes = {
        "hidden": h["hidden_size"],
        "joined_out": h["hidden_size"],
        "joined": 2 * h["hidden_size"],
        "vocab": h["padded_vocab_size"],
        "real_vocab": h["vocab_size"],
        "vocab_padding": h["padded_vocab_size"] - h["vocab_size"],
        "part": 2,
        "head": heads,
        "ffn": h["ffn_hidden_size"],
    }
    if h.get("kv_channels"):
        groups = h["num_query_groups"]
        queries = heads // groups
        sizes |= {"group": groups, "queries": queries, "slot": queries + 2, "channel": h["kv_channels"]}
    if h.get("num_experts"):
        sizes |= {"expert": h["num_experts"], "moe_ffn": h["moe_intermediate_size"]}
        shared = h.get("moe_shared_expert_intermediate_size")
        if shared is None and h.get("n_shared_experts"):
            shared = h["n_shared_experts"] * h["moe_intermediate_size"]
        if shared is not None:
            sizes["shared_ffn"] = shared
    if h.get("kv_lora_rank"):
        nope, rope, value = h["qk_nope_head_dim"], h["qk_rope_head_dim"], h["v_head_dim"]
        q_rank = h.get("q_lora_rank")
        sizes |= {
            "nope": nope,
            "rope": rope,
            "value": value,
            "qk": nope + rope,
            "kv": nope + value,
            "kv_rank": h["kv_lora_rank"],
            "kv_down": h["kv_lora_rank"] + rope,
            "q_down": q_rank or heads * (nope + rope),
        }
        if q_rank:
            sizes["q_rank"] = q_rank
    plain = {name: value for name, value in h.items() if isinstance(value, int) and not isinstance(value, bool)}
    return plain | sizes


_FUSED_HALVES = {"part": (0, 1)}, {"part": (1, 1)}


def _gated(prefix: str, roles: str, ffn: str, dimension: str) -> tuple[Rule, Rule]:
    """fc1 is [gate; up], each cut by rows, fc2 is cut by columns."""
    gate, up = _FUSED_HALVES
    return (
        Rule(
            f"{prefix}linear_fc1.weight",
            f"(part {ffn}) hidden",
            (
                Part(f"{roles}.gate", f"{ffn} hidden", gate),
                Part(f"{roles}.up", f"{ffn} hidden", up),
            ),
            {ffn: dimension},
        ),
        whole(f"{prefix}linear_fc2.weight", f"{roles}.down", f"hidden {ffn}", cuts={ffn: dimension}),
    )


def _grouped_experts() -> tuple[Rule, Rule]:
    """All experts of a rank in one tensor, transposed; the shape of `weight1` hides its memory order."""
    gate, up = _FUSED_HALVES
    return (
        Rule(
            "mlp.experts.weight1",
            "expert hidden part moe_ffn",
            (
                Part("moe.expert.gate", "moe_ffn hidden", gate, each="expert"),
                Part("moe.expert.up", "moe_ffn hidden", up, each="expert"),
            ),
            {"expert": EXPERT, "moe_ffn": EXPERT_TENSOR},
            shape="hidden (expert part moe_ffn)",
        ),
        Rule(
            "mlp.experts.weight2",
            "(expert moe_ffn) hidden",
            (Part("moe.expert.down", "hidden moe_ffn", each="expert"),),
            {"expert": EXPERT, "moe_ffn": EXPERT_TENSOR},
        ),
    )


def _renamed(rules: tuple[Rule, ...], old: str, new: str) -> tuple[Rule, ...]:
    return tuple(replace(rule, key=rule.key.replace(old, new)) for rule in rules)


_ATTENTION = (
    Rule(
        "self_attention.linear_qkv.weight",
        "(group slot channel) hidden",
        (
            Part("attention.q", "(group slot channel) hidden", {"slot": (0, "queries")}),
            Part("attention.k", "(group channel) hidden", {"slot": ("queries", 1)}),
            Part("attention.v", "(group channel) hidden", {"slot": ("queries + 1", 1)}),
        ),
        {"group": TENSOR},
    ),
    whole("self_attention.q_layernorm.weight", "attention.q_norm", "channel"),
    whole("self_attention.k_layernorm.weight", "attention.k_norm", "channel"),
    whole("self_attention.linear_proj.weight", "attention.proj", "hidden (head channel)", cuts={"head": TENSOR}),
)

_LATENT_ATTENTION = (
    Rule(
        "self_attention.linear_qkv.weight",
        rows=(
            Rows("q_down hidden", (Part("mla.q_down", "q_down hidden"),)),
            Rows("kv_down hidden", (Part("mla.kv_down", "kv_down hidden"),)),
        ),
    ),
    whole("self_attention.q_layernorm.weight", "mla.q_norm", "q_rank"),
    whole("self_attention.kv_layernorm.weight", "mla.kv_norm", "kv_rank"),
    whole("self_attention.linear_proj.weight", "mla.proj", "hidden (head value)", cuts={"head": TENSOR}),
)

_LATENT_UP = (
    whole("self_attention.linear_q_up_proj.weight", "mla.q_up", "(head qk) q_rank", cuts={"head": TENSOR}),
    whole("self_attention.linear_kv_up_proj.weight", "mla.kv_up", "(head kv) kv_rank", cuts={"head": TENSOR}),
)


def _split_up(key: str, role: str, rows: str, rank: str, start: str | int, size: str) -> Rule:
    """Some rows of every head of an up projection, as a tensor of their own."""
    axes = f"(head {rows}) {rank}"
    part = Part(role, axes, within={rows: (start, size)})
    return Rule(f"self_attention.{key}.weight", axes, (part,), {"head": TENSOR})


_LATENT_UP_SPLIT = (
    _split_up("linear_qk_nope", "mla.q_up", "nope", "q_rank", 0, "qk"),
    _split_up("linear_qk_rope", "mla.q_up", "rope", "q_rank", "nope", "qk"),
    _split_up("linear_kv_nope", "mla.kv_up", "nope", "kv_rank", 0, "kv"),
    _split_up("linear_v", "mla.kv_up", "value", "kv_rank", "nope", "kv"),
)

_ROUTER = (
    whole("mlp.router.weight", "moe.router", "expert hidden"),
    whole("mlp.router.expert_bias", "moe.router_bias", "expert", keeps_dtype=True),
    *_gated("mlp.shared_experts.", "moe.shared", "shared_ffn", TENSOR),
)

_NORMS = (
    whole("input_layernorm.weight", "norm.input", "hidden"),
    whole("pre_mlp_layernorm.weight", "norm.pre_mlp", "hidden"),
)

_FUSED_NORMS = (
    replace(
        whole("self_attention.linear_qkv.layer_norm_weight", "norm.input", "hidden"),
        beside=frozenset({"attention.q"}),
    ),
    replace(
        whole("mlp.linear_fc1.layer_norm_weight", "norm.pre_mlp", "hidden"),
        beside=frozenset({"mlp.gate"}),
    ),
)

_EXPERTS_ONE_BY_ONE = _gated("mlp.experts.local_experts.{expert}.", "moe.expert", "moe_ffn", EXPERT_TENSOR)


def _vocabulary(key: str, role: str) -> Rule:
    """Rows of the vocabulary, filled up with zeros to the padded size."""
    parts = (
        Part(role, "vocab hidden", {"vocab": (0, "real_vocab")}),
        Part(PADDING, "vocab hidden", {"vocab": ("real_vocab", "vocab_padding")}),
    )
    return Rule(key, "vocab hidden", parts, {"vocab": TENSOR})


EMBEDDING = _vocabulary("embedding.word_embeddings.weight", "embedding")


def choose_dialect(options: Options) -> Dialect:
    """The tables for these options; every option that changes names or layouts is decided here."""
    fused = options.transformer_impl == "transformer_engine"
    experts: tuple[Rule, ...]
    if not options.moe_grouped_gemm:
        experts = _EXPERTS_ONE_BY_ONE
    elif fused:
        experts = _gated("mlp.experts.", "moe.expert", "moe_ffn", EXPERT_TENSOR)
        experts = _renamed(experts, ".weight", ".weight{expert}")
    else:
        experts = _grouped_experts()
    final_norm = "final_layernorm.weight" if options.mtp_num_layers else "decoder.final_layernorm.weight"
    return Dialect(
        name=options.transformer_impl or "local",
        layer=(
            _FUSED_NORMS if fused else (),
            (
                *_NORMS,
                *_ATTENTION,
                *_LATENT_ATTENTION,
                *(_LATENT_UP_SPLIT if options.mla_mm_split else _LATENT_UP),
                *_gated("mlp.", "mlp", "ffn", TENSOR),
                *_ROUTER,
                *experts,
            ),
        ),
        first=(EMBEDDING,),
        last=(
            whole(final_norm, "norm.final", "hidden"),
            _vocabulary("output_layer.weight", "head"),
        ),
        mtp=(
            whole("mtp.layers.{layer}.enorm.weight", "mtp.embedding_norm", "hidden"),
            whole("mtp.layers.{layer}.hnorm.weight", "mtp.hidden_norm", "hidden"),
            whole("mtp.layers.{layer}.eh_proj.weight", "mtp.proj", "joined_out joined", cuts={"joined_out": TENSOR}),
            whole("mtp.final_layernorms.{layer}.weight", "mtp.final_norm", "hidden"),
        ),
    )
