"""LongCat-Flash: two latent attentions and two dense MLPs in a layer, beside experts, some of which have no weights."""

from collections.abc import Mapping, Sequence

from mscvt import (
    ENDS,
    EXPERTS,
    LATENT_ATTENTION,
    Hyperparameters,
    Layer,
    ModelType,
    Rule,
    RuleBlocks,
    count,
    flag,
    hookimpl,
    number,
    whole,
)

MSCVT_API = 2

_LAYER = "model.layers.{layer}."
_HALVES = (0, 1)


def _half(k: int) -> dict[str, str]:
    """The names of one half of a layer: an attention and an MLP with their norms."""
    attention = {
        role.replace("mla.", f"mla.{k}."): name.replace("self_attn.", f"self_attn.{k}.")
        for role, name in LATENT_ATTENTION.items()
    }
    mlp = {f"mlp.{k}.{part}": f"{_LAYER}mlps.{k}.{part}_proj.weight" for part in ("gate", "up", "down")}
    norms = {
        f"norm.{k}.input": f"{_LAYER}input_layernorm.{k}.weight",
        f"norm.{k}.pre_mlp": f"{_LAYER}post_attention_layernorm.{k}.weight",
    }
    return norms | attention | mlp


KIND = ("half_0", "half_1", "moe")
BLOCKS: Mapping[str, Mapping[str, str]] = {
    "model": ENDS,
    **{f"half_{k}": _half(k) for k in _HALVES},
    "moe": {
        **EXPERTS,
        "moe.router": _LAYER + "mlp.router.classifier.weight",
        "moe.router_bias": _LAYER + "mlp.router.e_score_correction_bias",
    },
}
FIELDS = {
    "num_layers": count("num_layers"),  # num_hidden_layers, where it is there, counts attentions
    "ffn_hidden_size": count("ffn_hidden_size"),
    "rotary_base": number("rope_theta", "rope_parameters.rope_theta", default=1e7),
    "num_experts": count("n_routed_experts"),
    "num_zero_experts": count("zero_expert_num", default=0, least=0),
    "moe_intermediate_size": count("expert_ffn_hidden_size"),
    "q_lora_rank": count("q_lora_rank"),
    "kv_lora_rank": count("kv_lora_rank"),
    "qk_nope_head_dim": count("qk_nope_head_dim"),
    "qk_rope_head_dim": count("qk_rope_head_dim"),
    "v_head_dim": count("v_head_dim"),
    "mla_scale_q_lora": flag("mla_scale_q_lora", default=None),
    "mla_scale_kv_lora": flag("mla_scale_kv_lora", default=None),
}
REFUSED = {"dialect": "models have two attentions in a layer, and megatron-core has one"}
ARGS = {
    "transformerlayer_type": "longcat",
    "multi_latent_attention": True,
    "qk_layernorm": True,
    "first_k_dense_replace": 0,
}


def _sizes(h: Hyperparameters) -> Mapping[str, int]:
    return {"choice": h["num_experts"] + h["num_zero_experts"]}


def _left_out(h: Hyperparameters) -> Mapping[str, str]:
    """Zero experts are identities, for which transformers writes two matrices all the same; releases have MTP."""
    experts = range(h["num_experts"], h["num_experts"] + h["num_zero_experts"])
    return {
        **{f"model.layers.*.mlp.experts.{e}.gate_proj.weight": "zero experts have no weights" for e in experts},
        **{f"model.layers.*.mlp.experts.{e}.up_proj.weight": "zero experts have no weights" for e in experts},
        "model.mtp.*": "models of this type are trained without MTP layers",
    }


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `longcat`."""
    return [
        ModelType("longcat", ("longcat_flash",), FIELDS, sizes=_sizes, refused=REFUSED, args=ARGS, left_out=_left_out)
    ]


@hookimpl
def mscvt_names(block: str) -> Mapping[str, str] | None:
    """Most modules of a layer are there twice, with a number after their name."""
    return BLOCKS.get(block)


@hookimpl
def mscvt_layers(hyperparameters: Hyperparameters) -> Sequence[Layer]:
    """All layers are alike."""
    return [Layer(i, KIND) for i in range(hyperparameters["num_layers"])]


@hookimpl
def mscvt_split_rules(blocks: RuleBlocks) -> Sequence[Rule]:
    """Each half has the usual layouts under numbered keys; the router also chooses among the zero experts."""
    router = (
        whole("mlp.router.weight", "moe.router", "choice hidden"),
        whole("mlp.router.expert_bias", "moe.router_bias", "choice", keeps_dtype=True),
    )
    return [*router, *(rule for k in _HALVES for rule in _half_rules(k, blocks))]


def _half_rules(k: int, blocks: RuleBlocks) -> Sequence[Rule]:
    return (
        whole(f"input_layernorm_{k}.weight", f"norm.{k}.input", "hidden"),
        whole(f"pre_mlp_layernorm_{k}.weight", f"norm.{k}.pre_mlp", "hidden"),
        *blocks.latent_attention(f"self_attention_{k}.", f"mla.{k}"),
        *blocks.gated_mlp(f"mlps_{k}.", f"mlp.{k}", "ffn"),
    )
