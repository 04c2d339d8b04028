"""PLM: latent attention without compression of the query, an MLP without a gate; the head is the embedding."""

from collections.abc import Mapping, Sequence

from mscvt import DECODER, FULL_QUERY, MLP, NORMS, ModelType, count, flag, hookimpl

MSCVT_API = 2

BLOCKS = {
    **DECODER,
    "attention": NORMS | FULL_QUERY,
    "mlp": {role: name for role, name in MLP.items() if role != "mlp.gate"},
}
FIELDS = {
    "tie_word_embeddings": flag("tie_word_embeddings", default=True),
    **{name: count(name) for name in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")},
}
REFUSED = {
    "mla_mm_split": "models have no compressed query to split the up projection of",
    "transformer_impl": "models are trained with local modules alone",
}
FLAGS = ("--spec mindspeed_llm.tasks.models.spec.plm_spec layer_spec", "--squared-relu", "--rope-scaling-type plm")


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `plm`."""
    args = {"squared_relu": True, "swiglu": False, "fc_type": "up_down"}
    return [ModelType("plm", ("plm",), FIELDS, refused=REFUSED, args=args, flags=lambda _: FLAGS)]


@hookimpl
def mscvt_names(block: str) -> Mapping[str, str] | None:
    """The names of latent attention and of the MLP."""
    return BLOCKS.get(block)
