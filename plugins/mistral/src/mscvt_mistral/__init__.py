"""Magistral, and what else `MistralForCausalLM` opens: the plain decoder, heads of a size of their own."""

from collections.abc import Sequence

from mscvt import DECODER, ModelType, hookimpl

MSCVT_API = 2


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `magistral`; training asks the checkpoint for the tokenizer that these models need."""
    return [ModelType("magistral", ("mistral",), names=DECODER, args={"tokenizer_type": "MagistralTokenizer"})]
