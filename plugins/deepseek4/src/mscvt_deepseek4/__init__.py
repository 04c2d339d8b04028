"""DeepSeek-V4: compressed sparse attention, hyper-connections, experts chosen by table or by score, MTP."""

from collections.abc import Mapping, Sequence
from typing import Any

from mscvt import (
    PADDING,
    TENSOR,
    Hyperparameters,
    Layer,
    ModelType,
    MscvtError,
    Rule,
    Source,
    absent,
    count,
    counts,
    flag,
    hookimpl,
    number,
    text,
    whole,
)
from mscvt_deepseek4.tensors import OWN, USUAL

MSCVT_API = 2

FIELDS = {
    **dict.fromkeys(("ffn_hidden_size", "kv_channels"), absent()),
    "num_experts": count("n_routed_experts"),
    "n_shared_experts": count("n_shared_experts", default=1),
    "moe_router_topk": count("num_experts_per_tok"),
    "mtp_num_layers": count("num_nextn_predict_layers", default=0, least=0),
    "num_hash_layers": count("num_hash_layers", default=0, least=0),
    "compress_ratios": counts("compress_ratios"),
    "hc_mult": count("hc_mult", default=4),
    **{name: count(name) for name in ("head_dim", "moe_intermediate_size", "q_lora_rank", "o_lora_rank", "o_groups")},
    **{name: count(name) for name in ("index_n_heads", "index_head_dim")},
    **{name: count(name, default=None) for name in ("index_topk", "hc_sinkhorn_iters", "sliding_window")},
    **{name: number(name, default=None) for name in ("hc_eps", "compress_rope_theta", "swiglu_limit")},
    "routed_scaling_factor": number("routed_scaling_factor", default=None),
    "scoring_func": text("scoring_func", default=None),
    "has_drafter": flag("has_drafter", default=None),
}
REFUSED = {
    "transformer_impl": "models are trained with local modules alone",
    "first_k_dense_replace": "models have no dense layers",
    "dialect": "models have hyper-connections and compressed attention, and megatron-core has no modules for them",
}
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
    heads, connections = h["num_attention_heads"] * h["head_dim"], h["hc_mult"]
    mixing = {"connected": connections * h["hidden_size"], "mix": (2 + connections) * connections, "kinds_of_mix": 3}
    return {**mixing, "one": 1, "o_in": heads // h["o_groups"], "index_width": 2 * h["index_head_dim"]}


def _args(h: Hyperparameters, layers: Sequence[Layer]) -> Mapping[str, Any]:
    ratios, kept = h["compress_ratios"], [layer.index for layer in layers if layer.mtp is None]
    return {
        "compress_ratios": [*(ratios[i] for i in kept), *ratios[h["num_layers"] :]],
        "n_hash_layers": h["num_hash_layers"],
        "num_nextn_predict_layers": len(layers) - len(kept),
        **dict.fromkeys(("kv_channels", "qk_head_dim"), h["head_dim"]),
        **dict.fromkeys(("multi_latent_attention", "enable_dsa_indexer"), True),
        "first_k_dense_replace": 0,
    }


def _args_of_tied_mtp(h: Hyperparameters, layers: Sequence[Layer]) -> Mapping[str, Any]:
    return {**_args(h, layers), "tie_mtp_embeddings_and_lmhead": "true"}


def _left_out(h: Hyperparameters) -> Mapping[str, str]:
    return {"mtp.*": "they are a drafter, which is no MTP layer"} if h.get("has_drafter") else {}


def _is_base(config: Mapping[str, Any]) -> bool:
    """The base release has its experts in FP8, the others in FP4."""
    return config.get("expert_dtype") == "fp8"


def _is_no_base(config: Mapping[str, Any]) -> bool:
    return not _is_base(config)


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve both; only the base release repeats the embedding and the head in its MTP layer."""
    same: dict[str, Any] = {"sizes": _sizes, "respell": _respelled, "refused": REFUSED, "left_out": _left_out}
    name, config = "deepseek4", ("deepseek_v4",)
    return [
        ModelType(name, config, FIELDS, _is_no_base, args=_args_of_tied_mtp, repeats_ends=False, **same),
        ModelType(f"{name}_base", config, FIELDS, _is_base, args=_args, **same),
    ]


@hookimpl
def mscvt_names(block: str) -> Mapping[str, str] | None:
    """Decoder layers and those of MTP (blocks `mtp_...`) have the same names, with prefixes of their own."""
    plain = block.removeprefix("mtp_")
    prefix = "" if block == "model" else "mtp.{mtp}." if block.startswith("mtp") else "layers.{layer}."
    names = {**USUAL.get(plain, {}), **{own.role: own.name for own in OWN.get(plain, ())}}
    return {role: prefix + name for role, name in names.items()} or None


@hookimpl
def mscvt_layers(hyperparameters: Hyperparameters) -> Sequence[Layer]:
    """The ratio decides what attention has, the number how experts are chosen; MTP layers don't compress."""
    size, ratios = hyperparameters["num_layers"], hyperparameters["compress_ratios"]
    if len(ratios) < size:
        raise MscvtError(f"compress_ratios has {len(ratios)} entries, expected one for each of {size} layers")
    layers = []
    for i, ratio in enumerate(ratios[:size]):
        compressed = ("compressor", "indexer") if ratio == _OVERLAP else ("compressor",) if ratio else ()
        chosen = "by_table" if i < hyperparameters["num_hash_layers"] else "by_score"
        sizes = {"ratio": ratio, "compressor_width": hyperparameters["head_dim"] * (2 if ratio == _OVERLAP else 1)}
        layers.append(Layer(i, ("attention", *compressed, "moe", chosen), sizes=sizes if ratio else {}))
    mtp = ("mtp_attention", "mtp_moe", "mtp_by_score")
    return layers + [Layer(size + m, mtp, mtp=m) for m in range(hyperparameters["mtp_num_layers"])]


@hookimpl
def mscvt_split_rules() -> Sequence[Rule]:
    """Besides those of `OWN`: the table of experts has a row for each word, MTP's projections lie side by side."""
    table, both = "vocab{} moe_router_topk", "joined_out (half{} hidden)"
    rows = Source("moe.router_table", table.format("[:real_vocab]")), Source(PADDING, table.format("[real_vocab:]"))
    halves = (f"mtp.{part}_proj" for part in ("embedding", "hidden"))
    columns = tuple(Source(role, both.format(f"[{k}]")) for k, role in enumerate(halves))
    own = [tensor for block in OWN.values() for tensor in block]
    return [
        *(whole(t.key, t.role, t.axes, cuts={t.cut: TENSOR} if t.cut else None, keeps_dtype=t.is_float32) for t in own),
        Rule("mlp.router.tid2eid", table.format(""), rows, keeps_dtype=True),
        Rule("eh_proj.weight", both.format(""), columns, {"joined_out": TENSOR}),
    ]
