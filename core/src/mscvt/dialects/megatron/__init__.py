"""NVIDIA's Megatron-LM: keys, layouts, options, args, pipelines and launch flags of megatron-core's own specs."""

from mscvt.dialects.megatron import dist, lora
from mscvt.dialects.megatron.args_words import in_our_words
from mscvt.dialects.megatron.args_written import make_args
from mscvt.dialects.megatron.checks import check
from mscvt.dialects.megatron.launch import training_flags
from mscvt.dialects.megatron.pipeline import topology
from mscvt.dialects.megatron.rules import empty_states, rules
from mscvt.dialects.megatron.scaling import unsaid
from mscvt.dialects.options import MEGATRON as NAME

DISTRIBUTED = dist
IS_USUAL = False
ITERATION = "release"

__all__ = [
    "DISTRIBUTED",
    "IS_USUAL",
    "ITERATION",
    "NAME",
    "check",
    "empty_states",
    "in_our_words",
    "lora",
    "make_args",
    "rules",
    "topology",
    "training_flags",
    "unsaid",
]
