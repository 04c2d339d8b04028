"""DeepSeek-V4: compressed sparse attention, hyper-connections, experts chosen by table or by score, MTP."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mscvt import (
    EXPERT_FIELDS,
    MOE,
    TENSOR,
    Hyperparameters,
    Layer,
    ModelType,
    Rule,
    RuleBlocks,
    Source,
    absent,
    count,
    counts,
    flag,
    hookimpl,
    number,
    same,
    text,
)
from mscvt_deepseek4.tensors import NAMES, OWN

MSCVT_API = 2

FIELDS = {
    **EXPERT_FIELDS,
    **dict.fromkeys(("ffn_hidden_size", "first_k_dense_replace", "kv_channels", "rotary_percent"), absent()),
    **dict.fromkeys(("head_dim", "qk_head_dim"), count("head_dim")),
    **dict.fromkeys(("num_hash_layers", "n_hash_layers"), count("num_hash_layers", default=0, least=0)),
    "moe_router_topk": count("num_experts_per_tok"),
    "compress_ratios": counts("compress_ratios", each_layer=True),
    "hc_mult": count("hc_mult", default=4),
    "rope_factor": number("rope_scaling.factor", default=None),
    "original_seq_len": count("rope_scaling.original_max_position_embeddings", default=None),
    **same(count, "q_lora_rank", "o_lora_rank", "o_groups", "index_n_heads", "index_head_dim"),
    **same(count, "index_topk", "hc_sinkhorn_iters", "sliding_window", "qk_rope_head_dim", default=None),
    **same(number, "hc_eps", "compress_rope_theta", "swiglu_limit", "routed_scaling_factor", default=None),
    **same(text, "scoring_func", default=None),
    **same(flag, "has_drafter", default=None),
}
_SPEC = "mindspeed_llm.tasks.models.spec.deepseek4_spec"
FLAGS = (
    *(f"--spec {_SPEC} layer_spec", f"--mtp-spec {_SPEC} mtp_spec", "--position-embedding-type deepseek4"),
    *("--enable-mhc", "hc_mult", "hc_sinkhorn_iters", "hc_eps", "--kv-compress", "compress_ratios"),
    *("compress_rope_theta", "o_groups", "o_lora_rank", "--sliding-window-size {sliding_window}", "n_hash_layers"),
    *("rope_factor", "original_seq_len", "swiglu_limit"),
)
REFUSED = {
    "transformer_impl": "models are trained with local modules alone",
    "first_k_dense_replace": "models have no dense layers",
    "dialect": "models have hyper-connections and compressed attention, and megatron-core has no modules for them",
}
ARGS = {"multi_latent_attention": True, "enable_dsa_indexer": True, "first_k_dense_replace": 0}
TIED_ARGS = {**ARGS, "tie_mtp_embeddings_and_lmhead": "true"}
DRAFTER = {"mtp.*": "they are a drafter, which is no MTP layer"}
_PARTS = ("embedding", "hidden")
_OVERLAP = 4
"""The ratio whose compressor looks at two runs of tokens at once, and which has an indexer."""
_RATIOS = {"sliding_attention": 0, "compressed_sparse_attention": _OVERLAP, "heavily_compressed_attention": 128}


def _respelled(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Ratios where transformers has kinds of layers, and no drafter in the place of MTP layers."""
    spelled, kinds, experts = dict(config), config.get("layer_types"), config.get("mlp_layer_types")
    if "compress_ratios" not in config and isinstance(kinds, list):
        rates = {**_RATIOS, **(config.get("compress_rates") or {})}
        spelled["compress_ratios"] = [rates.get(kind) for kind in kinds]
    if "num_hash_layers" not in config and isinstance(experts, list):
        spelled["num_hash_layers"] = experts.count("hash_moe")
    if any(name.startswith("dspark_") for name in config):
        spelled |= {"num_nextn_predict_layers": 0, "has_drafter": True}
    layers, ratios = spelled.get("num_hidden_layers"), spelled.get("compress_ratios")
    if isinstance(layers, int) and isinstance(ratios, list):
        spelled["compress_ratios"] = ratios[: layers + (spelled.get("num_nextn_predict_layers") or 0)]
    return spelled


def _sizes(h: Hyperparameters) -> Mapping[str, int]:
    connections, heads = h["hc_mult"], h["num_attention_heads"] * h["head_dim"]
    mix = {"connected": connections * h["hidden_size"], "mix": (2 + connections) * connections, "kinds_of_mix": 3}
    return {**mix, "o_in": heads // h["o_groups"], "index_width": 2 * h["index_head_dim"]}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve both; only the base release has its experts in FP8, and repeats the ends of the model in its MTP layer."""
    said: dict[str, Any] = {"sizes": _sizes, "respell": _respelled, "refused": REFUSED}
    said |= {"left_out": lambda h: DRAFTER if h.get("has_drafter") else {}}
    said |= {"names": NAMES, "own": OWN, "mtp_prefix": "mtp.{mtp}.", "flags": FLAGS}
    said |= {"config_model_types": ("deepseek_v4",), "fields": FIELDS}
    return [
        ModelType("deepseek4", args=TIED_ARGS, repeats_ends=False, **said),
        ModelType("deepseek4_base", args=ARGS, matches=lambda config: config.get("expert_dtype") == "fp8", **said),
    ]


@hookimpl
def mscvt_layers(hyperparameters: Hyperparameters) -> Sequence[Layer]:
    """The ratio decides what attention has, the number how experts are chosen; MTP layers don't compress."""
    size, ratios = hyperparameters["num_layers"], hyperparameters["compress_ratios"]
    layers = []
    for i, ratio in enumerate(ratios[:size]):
        compressed = ("compressor", "indexer") if ratio == _OVERLAP else ("compressor",) if ratio else ()
        chosen = "by_table" if i < hyperparameters["num_hash_layers"] else "by_score"
        sizes = {"ratio": ratio, "compressor_width": hyperparameters["head_dim"] * (2 if ratio == _OVERLAP else 1)}
        layers.append(Layer(i, ("attention", *compressed, "moe", chosen), sizes=sizes if ratio else {}))
    return layers + [Layer(size + m, (*MOE, "by_score"), mtp=m) for m in range(hyperparameters["mtp_num_layers"])]


@hookimpl
def mscvt_split_rules(blocks: RuleBlocks) -> Sequence[Rule]:
    """The table of experts has a row for each word, and is whole; MTP's projections lie side by side."""
    table = blocks.vocabulary("mlp.router.tid2eid", "moe.router_table", " moe_router_topk")
    halves = tuple(Source(f"mtp.{part}_proj", f"joined_out (half[{k}] hidden)") for k, part in enumerate(_PARTS))
    both = Rule("eh_proj.weight", "joined_out (half hidden)", halves, {"joined_out": TENSOR})
    return replace(table, cuts={}, keeps_dtype=True), both
