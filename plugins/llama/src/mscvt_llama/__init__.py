"""Llama 2 and 3: the plain decoder, with the names that transformers' `LlamaForCausalLM` uses."""

from collections.abc import Sequence

from mscvt import DECODER, ModelType, hookimpl

MSCVT_API = 2


@hookimpl
def mscvt_model_types() -> Sequence[ModelType]:
    """Serve `llama2`; the Llama 3 line has the same names."""
    return [ModelType("llama2", ("llama",), names=DECODER)]
