"""MindSpeed-LLM: keys, layouts, options, args, pipelines, launch flags."""

from mscvt.dialects.mindspeed import lora
from mscvt.dialects.mindspeed.args_words import in_our_words
from mscvt.dialects.mindspeed.args_written import make_args
from mscvt.dialects.mindspeed.checks import check
from mscvt.dialects.mindspeed.launch import training_flags, unsaid
from mscvt.dialects.mindspeed.pipeline import topology
from mscvt.dialects.mindspeed.rules import empty_states, rules
from mscvt.dialects.options import MINDSPEED as NAME

IS_USUAL = True
ITERATION = 1
DISTRIBUTED = None

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
