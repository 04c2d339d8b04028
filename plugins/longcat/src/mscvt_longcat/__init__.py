"""LongCat-Flash: two latent attentions and two dense MLPs in a layer, beside experts, some of which have no weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from mscvt import (
    ENDS,
    EXPERTS,
    LATENT_ATTENTION,
    LATENT_FIELDS,
    Hyperparameters,
    ModelType,
    Rule,
    RuleBlocks,
    count,
    flag,
    gated_mlp,
    hookimpl,
    in_layers,
    number,
    same,
    whole,
)

MSCVT_API = 2


def _half(k: int) -> dict[str, str]:
    """The names of one half of a layer: an attention and an MLP with their norms."""
    attention = {
        role.replace("mla.", f"mla.{k}."): name.replace("self_attn.", f"self_attn.{k}.")
        for role, name in LATENT_ATTENTION.items()
    }
    norms = {
        f"norm.{k}.input": f"input_layernorm.{k}.weight",
        f"norm.{k}.pre_mlp": f"post_attention_layernorm.{k}.weight",
    }
    return attention | in_layers(norms | gated_mlp(f"mlp.{k}", f"mlps.{k}."))


ROUTER = {
    "moe.router": "mlp.router.classifier.weight",
    "moe.router_bias": "mlp.router.e_score_correction_bias",
}
NAMES = {"model": ENDS, "attention": _half(0) | _half(1), "moe": EXPERTS | in_layers(ROUTER)}
FIELDS = {
    **LATENT_FIELDS,
    **same(count, "num_layers", "ffn_hidden_size", "q_lora_rank"),  # num_hidden_layers counts attentions
    **same(flag, "mla_scale_q_lora", "mla_scale_kv_lora", default=None),
    "rotary_base": number("rope_theta", "rope_parameters.rope_theta", default=1e7),
    "num_experts": count("n_routed_experts"),
    "num_zero_experts": count("zero_expert_num", default=0, least=0),
    "moe_intermediate_size": count("expert_ffn_hidden_size"),
}
REFUSED = {"dialect": "models have two attentions in a layer, and megatron-core has one"}
ARGS = {
    "transformerlayer_type": "longcat",
    "multi_latent_attention": True,
    "qk_layernorm": True,
    "first_k_dense_replace": 0,
}


ROUTING = {"scoring_func": "softmax", "norm_topk_prob": False}
"""What no configuration says: experts are chosen by the softmax of all scores and a bias."""


def _sizes(h: Hyperparameters) -> Mapping[str, int]:
    return {"choice": h["num_experts"] + h["num_zero_experts"]}


def _respelled(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**ROUTING, **config}


def _left_out(h: Hyperparameters) -> Mapping[str, str]:
    """Zero experts are identities, for which transformers writes two matrices all the same; releases have MTP."""
    experts = range(h["num_experts"], h["num_experts"] + h["num_zero_experts"])
    zero = [f"model.layers.*.mlp.experts.{e}.{half}_proj.weight" for half in ("gate", "up") for e in experts]
    return {
        **dict.fromkeys(zero, "zero experts have no weights"),
        "model.mtp.*": "models of this type are trained without MTP layers",
    }


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `longcat`. Most modules of a layer are there twice, with a number after their name."""
    return [
        ModelType(
            "longcat",
            ("longcat_flash",),
            FIELDS,
            sizes=_sizes,
            respell=_respelled,
            refused=REFUSED,
            args=ARGS,
            left_out=_left_out,
            names=NAMES,
        )
    ]


@hookimpl
def mscvt_split_rules(blocks: RuleBlocks) -> Sequence[Rule]:
    """Each half has the usual layouts under numbered keys; the router also chooses among the zero experts."""
    router = (
        whole("mlp.router.weight", "moe.router", "choice hidden"),
        whole("mlp.router.expert_bias", "moe.router_bias", "choice", keeps_dtype=True),
    )
    return [*router, *(rule for k in (0, 1) for rule in _half_rules(k, blocks))]


def _half_rules(k: int, blocks: RuleBlocks) -> Sequence[Rule]:
    return (
        whole(f"input_layernorm_{k}.weight", f"norm.{k}.input", "hidden"),
        whole(f"pre_mlp_layernorm_{k}.weight", f"norm.{k}.pre_mlp", "hidden"),
        *blocks.latent_attention(f"self_attention_{k}.", f"mla.{k}"),
        *blocks.gated_mlp(f"mlps_{k}.", f"mlp.{k}", "ffn"),
    )
