"""Families of transformers in small, with the name of every role: what the forward pass from roles is compared on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mscvt.testing.forward import Conventions, tensors_by_role

PREFIX = "model.layers.{layer}."
ENDS = {"embedding": "model.embed_tokens.weight", "norm.final": "model.norm.weight", "head": "lm_head.weight"}
NORMS = {"norm.input": PREFIX + "input_layernorm.weight", "norm.pre_mlp": PREFIX + "post_attention_layernorm.weight"}
NORM_BIASES = {f"{role}_bias": name.replace(".weight", ".bias") for role, name in NORMS.items()}


def attention(*parts, suffix="weight"):
    """Roles and names of projections: q, k, v, o."""
    bias = "_bias" if suffix == "bias" else ""
    roles = {"o": "proj"}
    return {f"attention.{roles.get(part, part)}{bias}": f"{PREFIX}self_attn.{part}_proj.{suffix}" for part in parts}


GATED = ("gate", "up", "down")


def gated(role, name, parts=("gate_proj", "up_proj", "down_proj")):
    """Roles and names of gate, up and down."""
    return {f"{role}.{kind}": f"{PREFIX}{name}.{part}.weight" for kind, part in zip(GATED, parts, strict=True)}


QKVO = attention(*"qkvo")
QKV_BIAS = attention(*"qkv", suffix="bias")
QK_NORM = {f"attention.{part}_norm": f"{PREFIX}self_attn.{part}_norm.weight" for part in "qk"}
MLP = gated("mlp", "mlp")
EXPERTS = {"moe.router": PREFIX + "mlp.gate.weight"} | gated("moe.expert", "mlp.experts.{expert}")
MIXTRAL = {"moe.router": PREFIX + "block_sparse_moe.gate.weight"} | gated(
    "moe.expert", "block_sparse_moe.experts.{expert}", ("w1", "w3", "w2")
)
SHARED = gated("moe.shared", "mlp.shared_experts")
ROUTER_BIAS = {"moe.router_bias": PREFIX + "mlp.gate.e_score_correction_bias"}
DEEPSEEK_MOE = EXPERTS | SHARED | ROUTER_BIAS
KV_LATENT = {
    f"mla.{role}": f"{PREFIX}self_attn.{name}.weight"
    for role, name in {
        "kv_down": "kv_a_proj_with_mqa",
        "kv_norm": "kv_a_layernorm",
        "kv_up": "kv_b_proj",
        "proj": "o_proj",
    }.items()
}
FULL_MLA = KV_LATENT | {"mla.q_down": PREFIX + "self_attn.q_proj.weight"}
MLA = KV_LATENT | {
    "mla.q_down": PREFIX + "self_attn.q_a_proj.weight",
    "mla.q_norm": PREFIX + "self_attn.q_a_layernorm.weight",
    "mla.q_up": PREFIX + "self_attn.q_b_proj.weight",
}
INDEXER = {
    "indexer.q": PREFIX + "self_attn.indexer.wq_b.weight",
    "indexer.k": PREFIX + "self_attn.indexer.wk.weight",
    "indexer.k_norm": PREFIX + "self_attn.indexer.k_norm.weight",
    "indexer.k_norm_bias": PREFIX + "self_attn.indexer.k_norm.bias",
    "indexer.weights": PREFIX + "self_attn.indexer.weights_proj.weight",
}
PLAIN = NORMS | QKVO | MLP

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-2,  # so large that a norm with another constant shows
    "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOP = {"num_experts_per_tok": 3, "moe_intermediate_size": 22}
GROUPS = {"n_group": 4, "topk_group": 2, "norm_topk_prob": True, "routed_scaling_factor": 1.7}
LATENT = TOP | {
    "num_key_value_heads": 4,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "kv_lora_rank": 14,
    "q_lora_rank": 18,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 9,
    "first_k_dense_replace": 1,
}
SPARSE = {"index_topk": 3, "index_head_dim": 11, "index_n_heads": 3}


@dataclass(frozen=True)
class Family:
    """A model type of transformers, what its small configuration adds, and the names of the ends and of every layer."""

    model_type: str
    sizes: Mapping[str, Any]
    layers: tuple[Mapping[str, str], ...]
    ends: Mapping[str, str] = field(default_factory=lambda: ENDS)
    conventions: Conventions | None = None

    @property
    def config(self) -> dict[str, Any]:
        return {"model_type": self.model_type, "num_hidden_layers": len(self.layers), **SIZES, **self.sizes}

    def roles(self, tensors: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The tensors of the ends and of every layer."""
        layers = [tensors_by_role(names, tensors, layer) for layer, names in enumerate(self.layers)]
        return tensors_by_role(self.ends, tensors), layers


FAMILIES = {
    "llama": Family("llama", {}, (PLAIN, PLAIN)),
    "llama tied": Family(
        "llama", {"tie_word_embeddings": True}, (PLAIN, PLAIN), {role: ENDS[role] for role in ENDS if role != "head"}
    ),
    "llama with biases": Family(
        "llama",
        {"attention_bias": True, "mlp_bias": True},
        (
            PLAIN
            | attention(*"qkvo", suffix="bias")
            | {f"{role}_bias": name.replace(".weight", ".bias") for role, name in MLP.items()},
        ),
    ),
    "qwen3": Family("qwen3", {"head_dim": 12}, (PLAIN | QK_NORM,) * 2),
    "qwen3_moe": Family(
        "qwen3_moe",
        TOP | {"head_dim": 12, "num_experts": 8, "norm_topk_prob": True, "mlp_only_layers": [0]},
        (PLAIN | QK_NORM, NORMS | QKVO | QK_NORM | EXPERTS),
    ),
    "qwen3_moe without normalised weights": Family(
        "qwen3_moe", TOP | {"num_experts": 8, "norm_topk_prob": False}, (NORMS | QKVO | QK_NORM | EXPERTS,)
    ),
    "deepseek_v2": Family(
        "deepseek_v2",
        LATENT | {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.7},
        (NORMS | MLA | MLP, NORMS | MLA | EXPERTS | SHARED),
    ),
    "deepseek_v2 lite": Family(
        "deepseek_v2",
        LATENT | {"q_lora_rank": None, "topk_method": "greedy", "n_group": 4, "topk_group": 2},
        (NORMS | FULL_MLA | MLP, NORMS | FULL_MLA | EXPERTS | SHARED),
    ),
    "deepseek_v3": Family("deepseek_v3", LATENT | GROUPS, (NORMS | MLA | MLP, NORMS | MLA | DEEPSEEK_MOE)),
    "deepseek_v3 with rotated halves": Family(
        "deepseek_v3", LATENT | GROUPS | {"rope_interleave": False}, (NORMS | MLA | MLP,)
    ),
    "deepseek_v32": Family(
        "deepseek_v32",
        LATENT | GROUPS | SPARSE | {"mlp_layer_types": ["dense", "sparse"]},
        (NORMS | MLA | INDEXER | MLP, NORMS | MLA | INDEXER | DEEPSEEK_MOE),
    ),
    "qwen2": Family("qwen2", {}, (PLAIN | QKV_BIAS,) * 2),
    "qwen2_moe": Family(
        "qwen2_moe",
        TOP | {"num_experts": 6, "shared_expert_intermediate_size": 28},
        (
            NORMS
            | QKVO
            | QKV_BIAS
            | EXPERTS
            | gated("moe.shared", "mlp.shared_expert")
            | {"moe.shared_gate": PREFIX + "mlp.shared_expert_gate.weight"},
        ),
    ),
    "mistral": Family("mistral", {"head_dim": 14, "sliding_window": None}, (PLAIN, PLAIN)),
    "mistral with a window": Family("mistral", {"head_dim": 14, "sliding_window": 4}, (PLAIN, PLAIN)),
    "mixtral": Family(
        "mixtral", {"num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 10}, (NORMS | QKVO | MIXTRAL,) * 2
    ),
    "seed_oss": Family(
        "seed_oss", {"head_dim": 10, "attention_out_bias": True}, (PLAIN | attention(*"qkvo", suffix="bias"),) * 2
    ),
    "gemma2": Family(
        "gemma2",
        {
            "head_dim": 12,
            "query_pre_attn_scalar": 7,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
            "sliding_window": 4,
            "tie_word_embeddings": True,
        },
        (
            PLAIN
            | {
                "norm.post_attention": PREFIX + "post_attention_layernorm.weight",
                "norm.pre_mlp": PREFIX + "pre_feedforward_layernorm.weight",
                "norm.post_mlp": PREFIX + "post_feedforward_layernorm.weight",
            },
        )
        * 2,
        {role: ENDS[role] for role in ENDS if role != "head"},
        Conventions(norm_offset=1.0, scales_embedding=True),
    ),
    "olmo2": Family(
        "olmo2",
        {},
        (
            QKVO
            | QK_NORM
            | MLP
            | {
                "norm.post_attention": PREFIX + "post_attention_layernorm.weight",
                "norm.post_mlp": PREFIX + "post_feedforward_layernorm.weight",
            },
        )
        * 2,
    ),
    "phi3": Family(
        "phi3",
        {},
        (
            NORMS
            | {
                "attention.qkv": PREFIX + "self_attn.qkv_proj.weight",
                "attention.proj": PREFIX + "self_attn.o_proj.weight",
                "mlp.gate_up": PREFIX + "mlp.gate_up_proj.weight",
                "mlp.down": PREFIX + "mlp.down_proj.weight",
            },
        )
        * 2,
    ),
    "phimoe": Family(
        "phimoe",
        {"num_local_experts": 6, "router_jitter_noise": 0.3, "attention_bias": True, "lm_head_bias": True},
        (NORMS | NORM_BIASES | attention(*"qkvo", suffix="bias") | QKVO | MIXTRAL,) * 2,
        ENDS | {"norm.final_bias": "model.norm.bias", "head_bias": "lm_head.bias"},
        Conventions(router="sparsemixer"),
    ),
    "glm4_moe": Family(
        "glm4_moe",
        TOP
        | GROUPS
        | {
            "head_dim": 12,
            "n_routed_experts": 8,
            "n_shared_experts": 2,
            "first_k_dense_replace": 1,
            "attention_bias": True,
            "use_qk_norm": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5},
        },
        (PLAIN | QKV_BIAS | QK_NORM, NORMS | QKVO | QKV_BIAS | QK_NORM | DEEPSEEK_MOE),
    ),
    "glm4_moe air": Family(
        "glm4_moe",
        TOP
        | GROUPS
        | {"n_routed_experts": 8, "first_k_dense_replace": 0, "attention_bias": True, "use_qk_norm": False},
        (NORMS | QKVO | QKV_BIAS | DEEPSEEK_MOE,) * 2,
    ),
    "minimax_m2": Family(
        "minimax_m2",
        {
            "head_dim": 12,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5},
        },
        (NORMS | QKVO | QK_NORM | MIXTRAL | {"moe.router_bias": PREFIX + "block_sparse_moe.e_score_correction_bias"},)
        * 2,
    ),
    "hy_v3": Family(
        "hy_v3",
        TOP
        | {
            "head_dim": 12,
            "num_experts": 6,
            "num_shared_experts": 2,
            "mlp_layer_types": ["dense", "sparse"],
            "router_scaling_factor": 1.6,
        },
        (
            PLAIN | QK_NORM,
            NORMS
            | QKVO
            | QK_NORM
            | EXPERTS
            | gated("moe.shared", "mlp.shared_mlp")
            | {"moe.router": PREFIX + "mlp.router.gate.weight", "moe.router_bias": PREFIX + "mlp.expert_bias"},
        ),
    ),
    "glm_moe_dsa": Family(
        "glm_moe_dsa",
        LATENT
        | GROUPS
        | SPARSE
        | {"indexer_types": ["full", "shared", "full"], "mlp_layer_types": ["dense", "sparse", "sparse"]},
        (NORMS | MLA | INDEXER | MLP, NORMS | MLA | DEEPSEEK_MOE, NORMS | MLA | INDEXER | DEEPSEEK_MOE),
        conventions=Conventions(indexer_rope_interleave=True),
    ),
}
