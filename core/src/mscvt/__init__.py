"""mscvt: exact, streaming conversion of model weights between Hugging Face and Megatron-Core.

This module is what a family's plugin imports; it does not import torch.
"""

from mscvt.errors import MscvtError
from mscvt.layout.rules import PADDING, Part, Rows, Rule, whole
from mscvt.model.family import DECODER, DENSE, MODEL, MOE, MTP, Hyperparameters, Layer, ModelType, field_at
from mscvt.parallel.topology import EXPERT, EXPERT_TENSOR, TENSOR, Topology
from mscvt.plugins.hookspecs import API_VERSION, hookimpl

__version__ = "0.1.0"

__all__ = [
    "API_VERSION",
    "DECODER",
    "DENSE",
    "EXPERT",
    "EXPERT_TENSOR",
    "MODEL",
    "MOE",
    "MTP",
    "PADDING",
    "TENSOR",
    "Hyperparameters",
    "Layer",
    "ModelType",
    "MscvtError",
    "Part",
    "Rows",
    "Rule",
    "Topology",
    "__version__",
    "field_at",
    "hookimpl",
    "whole",
]
