"""The keys and layouts of MindSpeed-LLM's `local` and `transformer_engine` modules.

Sources: MindSpeed-LLM `convert_ckpt_v2`, megatron-core `gpt_layer_specs` and `GroupedMLP`.
"""

from __future__ import annotations

from dataclasses import replace

from mscvt.dialects.dialect import End, Rules
from mscvt.dialects.mindspeed.options import Options
from mscvt.layout.rules import EXPERT, EXPERT_TENSOR, PADDING, TENSOR, Rule, Source, whole


def _gated(
    prefix: str, roles: str, ffn: str, dimension: str, *, lead: str = "", key: str = "weight"
) -> tuple[Rule, Rule]:
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
        whole(f"{prefix}linear_fc2.{key}", f"{roles}.down", f"{lead}hidden {ffn}", cuts=cuts),
    )


def _grouped_experts() -> tuple[Rule, Rule]:
    """All experts of a rank in one tensor, transposed; the shape of `weight1` hides its memory order."""
    cuts = {"expert": EXPERT, "moe_ffn": EXPERT_TENSOR}
    return (
        Rule(
            "mlp.experts.weight1",
            "expert hidden half moe_ffn",
            (
                Source("moe.expert.gate", "expert (half[0] moe_ffn) hidden"),
                Source("moe.expert.up", "expert (half[1] moe_ffn) hidden"),
            ),
            cuts,
            shape="hidden (expert half moe_ffn)",
        ),
        Rule(
            "mlp.experts.weight2",
            "(expert moe_ffn) hidden",
            (Source("moe.expert.down", "expert hidden moe_ffn"),),
            cuts,
        ),
    )


_ATTENTION = (
    Rule(
        "self_attention.linear_qkv.weight",
        "(group slot channel) hidden",
        (
            Source("attention.q", "(group slot[:queries] channel) hidden"),
            Source("attention.k", "(group slot[queries] channel) hidden"),
            Source("attention.v", "(group slot[queries + 1] channel) hidden"),
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
        "down hidden",
        (Source("mla.q_down", "down[:q_down] hidden"), Source("mla.kv_down", "down[q_down:] hidden")),
    ),
    whole("self_attention.q_layernorm.weight", "mla.q_norm", "q_rank"),
    whole("self_attention.kv_layernorm.weight", "mla.kv_norm", "kv_rank"),
    whole("self_attention.linear_proj.weight", "mla.proj", "hidden (head value)", cuts={"head": TENSOR}),
)

_LATENT_UP = (
    whole("self_attention.linear_q_up_proj.weight", "mla.q_up", "(head qk) q_rank", cuts={"head": TENSOR}),
    whole("self_attention.linear_kv_up_proj.weight", "mla.kv_up", "(head kv) kv_rank", cuts={"head": TENSOR}),
)


def _some_rows(key: str, role: str, rows: str, every_row: str) -> Rule:
    """Some rows of every head of an up projection, as a tensor of their own."""
    return Rule(f"self_attention.{key}.weight", rows, (Source(role, every_row),), {"head": TENSOR})


_LATENT_UP_SPLIT = (
    _some_rows("linear_qk_nope", "mla.q_up", "(head qk[:nope]) q_rank", "(head qk) q_rank"),
    _some_rows("linear_qk_rope", "mla.q_up", "(head qk[nope:]) q_rank", "(head qk) q_rank"),
    _some_rows("linear_kv_nope", "mla.kv_up", "(head kv[:nope]) kv_rank", "(head kv) kv_rank"),
    _some_rows("linear_v", "mla.kv_up", "(head kv[nope:]) kv_rank", "(head kv) kv_rank"),
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


def _vocabulary(key: str, role: str) -> Rule:
    """Rows of the vocabulary, filled up with zeros to the padded size."""
    sources = (Source(role, "vocab[:real_vocab] hidden"), Source(PADDING, "vocab[real_vocab:] hidden"))
    return Rule(key, "vocab hidden", sources, {"vocab": TENSOR})


_EMBEDDING = _vocabulary("embedding.word_embeddings.weight", "embedding")
_HEAD = _vocabulary("output_layer.weight", "head")
_TIED_HEAD = _vocabulary("output_layer.weight", "embedding")
_MTP = {
    "mtp.layers.{layer}.": (
        whole("enorm.weight", "mtp.embedding_norm", "hidden"),
        whole("hnorm.weight", "mtp.hidden_norm", "hidden"),
        whole("eh_proj.weight", "mtp.proj", "joined_out joined", cuts={"joined_out": TENSOR}),
    ),
    "mtp.final_layernorms.{layer}.": (whole("weight", "mtp.final_norm", "hidden"),),
}


def rules(options: Options, *, is_tied: bool) -> Rules:
    """The tables for these options; every option that changes names or layouts is decided here."""
    fused = options.transformer_impl == "transformer_engine"
    if not options.moe_grouped_gemm:
        experts = _gated("mlp.experts.local_experts.{expert}.", "moe.expert", "moe_ffn", EXPERT_TENSOR, lead="expert ")
    elif fused:
        experts = _gated("mlp.experts.", "moe.expert", "moe_ffn", EXPERT_TENSOR, lead="expert ", key="weight{expert}")
    else:
        experts = _grouped_experts()
    many_stages = (options.target_pipeline_parallel_size or 1) > 1
    final_norm = "final_layernorm.weight" if options.mtp_num_layers else "decoder.final_layernorm.weight"
    last = [End(whole(final_norm, "norm.final", "hidden"))]
    if not is_tied:
        last.append(End(_HEAD))
    elif many_stages:  # the embedding of the first stage is out of the last one's reach
        last.append(End(_TIED_HEAD, is_copy=True))
    if many_stages and options.mtp_num_layers:
        last.append(End(_EMBEDDING, is_copy=True))
    return Rules(
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
        first=(End(_EMBEDDING),),
        last=tuple(last),
        mtp=_MTP,
        decoder_prefix="decoder.layers.{layer}.",
        mtp_prefix="mtp.layers.{layer}.transformer_layer.",
    )
