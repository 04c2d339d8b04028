"""mscvt: exact, streaming conversion of model weights between Hugging Face and Megatron-Core.

This module is what a family's plugin imports; it does not import torch.
"""

from mscvt.errors import MscvtError
from mscvt.layout.rules import EXPERT, EXPERT_TENSOR, PADDING, TENSOR, Rule, Source, whole
from mscvt.model.family import DENSE, MODEL, MOE, MTP, Hyperparameters, Layer, ModelType
from mscvt.model.fields import (
    DECODER_FIELDS,
    EXPERT_FIELDS,
    Field,
    absent,
    count,
    counts,
    flag,
    number,
    table,
    text,
    words,
)
from mscvt.parallel.topology import Topology
from mscvt.plugins.blocks import (
    ATTENTION,
    DECODER,
    ENDS,
    EXPERTS,
    FULL_QUERY,
    INDEXER,
    LATENT_ATTENTION,
    MLP,
    MTP_COPIES,
    MTP_ENDS,
    NORMS,
    QK_NORM,
    QKV_BIAS,
    ROLES,
    ROUTER_BIAS,
    SHARED_EXPERTS,
    SPARSE_EXPERTS,
)
from mscvt.plugins.hookspecs import API_VERSION, hookimpl
from mscvt.plugins.rule_blocks import RuleBlocks

__version__ = "0.2.0"

__all__ = [
    "API_VERSION",
    "ATTENTION",
    "DECODER",
    "DECODER_FIELDS",
    "DENSE",
    "ENDS",
    "EXPERT",
    "EXPERTS",
    "EXPERT_FIELDS",
    "EXPERT_TENSOR",
    "FULL_QUERY",
    "INDEXER",
    "LATENT_ATTENTION",
    "MLP",
    "MODEL",
    "MOE",
    "MTP",
    "MTP_COPIES",
    "MTP_ENDS",
    "NORMS",
    "PADDING",
    "QKV_BIAS",
    "QK_NORM",
    "ROLES",
    "ROUTER_BIAS",
    "SHARED_EXPERTS",
    "SPARSE_EXPERTS",
    "TENSOR",
    "Field",
    "Hyperparameters",
    "Layer",
    "ModelType",
    "MscvtError",
    "Rule",
    "RuleBlocks",
    "Source",
    "Topology",
    "__version__",
    "absent",
    "count",
    "counts",
    "flag",
    "hookimpl",
    "number",
    "table",
    "text",
    "whole",
    "words",
]
