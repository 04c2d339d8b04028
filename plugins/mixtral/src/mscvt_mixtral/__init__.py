"""Mixtral: the plain decoder's attention, and experts in every layer under the names w1, w3 and w2."""

from collections.abc import Sequence

from mscvt import DECODER, SPARSE_EXPERT_FIELDS, SPARSE_EXPERTS, ModelType, hookimpl

MSCVT_API = 2


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `mixtral`."""
    return [ModelType("mixtral", ("mixtral",), SPARSE_EXPERT_FIELDS, names={**DECODER, "moe": SPARSE_EXPERTS})]
