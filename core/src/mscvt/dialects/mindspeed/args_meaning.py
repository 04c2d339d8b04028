"""What `args` may not say otherwise than the family: settings under which the same numbers mean something else."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mscvt.errors import Faults
from mscvt.model.hyperparameters import shown_value

_USUAL: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "apply_layernorm_1p": (False,),
        "add_rmsnorm_offset": (False,),
        "normalization": ("RMSNorm",),
        "position_embedding_type": ("rope", "yarn"),
        "rotary_interleaved": (False,),
        "swiglu": (True,),
        "geglu": (False,),
        "squared_relu": (False,),
        "quick_geglu": (False,),
        "openai_gelu": (False,),
        "add_bias_linear": (False,),
        "add_dense_bias": (False,),
        "add_qkv_bias": (False,),
        "attention_output_gate": (False,),
        "post_norm": (False,),
    }
)
"""Setting -> the values under which a plain decoder's weights mean what Hugging Face takes them for."""


def check_meaning(args: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose numbers mean something else than the family's.

    Args:
        args: What the checkpoint recorded; what it doesn't say is taken for what it should be.
        own: The settings of the family where they are not the usual ones.

    Raises:
        MscvtError: All settings that differ.
    """
    faults = Faults()
    for name, usual in _USUAL.items():
        expected = (own[name],) if name in own else usual
        value = args.get(name)
        if value is not None and value not in expected:
            faults.add(
                f"{name} is {shown_value(value)}, expected {' or '.join(map(repr, expected))}",
                hint="Is --model-type-hf the model's? A checkpoint that was trained otherwise has no form that "
                "transformers could load under this model type.",
            )
    faults.raise_if_any("the checkpoint's args record a model whose weights mean something else")
