"""What `args` may not say otherwise than the family: settings under which the same numbers mean something else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from mscvt.dialects.biases import implied
from mscvt.errors import Faults
from mscvt.model.family import Hyperparameters, Layer
from mscvt.model.hyperparameters import shown_value
from mscvt.plugins.family import Family

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
_ATTENTION, _MLP = frozenset({"attention", "mla"}), frozenset({"mlp", "moe"})
_ABOUT: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        **dict.fromkeys(("position_embedding_type", "rotary_interleaved"), _ATTENTION),
        **dict.fromkeys(("add_qkv_bias", "add_dense_bias", "attention_output_gate"), _ATTENTION),
        **dict.fromkeys(("swiglu", "geglu", "squared_relu", "quick_geglu", "openai_gelu"), _MLP),
    }
)
"""Setting -> the parts of a model that it speaks of, one of which the model must have; the others speak of all."""

_SAID_BY_ROLES: Mapping[str, tuple[str, Any]] = MappingProxyType(
    {
        "attention.q_bias": ("add_qkv_bias", True),
        "attention.proj_bias": ("add_dense_bias", True),
        "mlp.down_bias": ("add_bias_linear", True),
        "head_bias": ("add_output_layer_bias", True),
        "moe.shared_gate": ("shared_expert_gate", True),
        "norm.input_bias": ("normalization", "LayerNorm"),
        **dict.fromkeys(("norm.post_attention", "norm.post_mlp"), ("post_norm", True)),
    }
)
"""Role -> the setting of a model that has it, and its value."""
_GATES = frozenset({"mlp.gate", "moe.expert.gate", "moe.expert.gate_up"})


def said_by_roles(family: Family, h: Hyperparameters, layers: Iterable[Layer]) -> dict[str, Any]:
    """The settings that follow from what a model consists of; a family says the others."""
    roles = family.roles(layers, h) | family.end_names(h).keys()
    said = dict(said for role, said in _SAID_BY_ROLES.items() if role in roles)
    return said if "mlp.up" not in roles or roles & _GATES else {**said, "swiglu": False}


def check_meaning(args: Mapping[str, Any], own: Mapping[str, Any], features: frozenset[str]) -> None:
    """Refuse a checkpoint whose numbers mean something else than the family's.

    Args:
        args: What the checkpoint recorded; what it doesn't say is taken for what it should be.
        own: The settings of the family where they are not the usual ones.
        features: The parts that the model has (`attention`, `moe`, ...).

    Raises:
        MscvtError: All settings that differ.
    """
    faults = Faults()
    follows = implied(args)
    for name, usual in _USUAL.items():
        expected = (own[name],) if name in own else usual
        value = args.get(name)
        if name in follows:  # it is as wrong as what it follows from
            continue
        if value is not None and value not in expected and features & _ABOUT.get(name, features):
            faults.add(
                f"{name} is {shown_value(value)}, expected {' or '.join(map(repr, expected))}",
                hint="Is --model-type-hf the model's? A checkpoint that was trained otherwise has no form that "
                "transformers could load under this model type.",
            )
    faults.raise_if_any("the checkpoint's args record a model whose weights mean something else")
