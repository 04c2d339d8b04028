"""PLM: latent attention without compression of the query, an MLP without a gate; the head is the embedding."""

from collections.abc import Sequence

from mscvt import DECODER, FULL_QUERY, LATENT_FIELDS, MLP, NORMS, ModelType, flag, hookimpl

MSCVT_API = 2

NAMES = {**DECODER, "attention": NORMS | FULL_QUERY, "mlp": {r: name for r, name in MLP.items() if r != "mlp.gate"}}
FIELDS = {**LATENT_FIELDS, "tie_word_embeddings": flag("tie_word_embeddings", default=True)}
REFUSED = {
    "mla_mm_split": "models have no compressed query to split the up projection of",
    "transformer_impl": "models are trained with local modules alone",
}
ARGS = {"squared_relu": True, "fc_type": "up_down"}
_SPEC = "--spec mindspeed_llm.tasks.models.spec.plm_spec layer_spec"
FLAGS = {"mindspeed": (_SPEC, "squared_relu", "--rope-scaling-type plm")}


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `plm`."""
    return [ModelType("plm", ("plm",), FIELDS, names=NAMES, refused=REFUSED, args=ARGS, flags=FLAGS)]
