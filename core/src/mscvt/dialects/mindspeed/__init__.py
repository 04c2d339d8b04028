"""MindSpeed-LLM: keys, layouts, options, args, pipelines, launch flags."""

from mscvt.dialects.mindspeed.args_words import in_our_words
from mscvt.dialects.mindspeed.args_written import make_args
from mscvt.dialects.mindspeed.checks import check
from mscvt.dialects.mindspeed.launch import training_flags
from mscvt.dialects.mindspeed.lora import (
    can_be_trained,
    check_lora,
    factor_keys,
    is_factor,
    is_grouped,
    lora_args,
    lora_flags,
    plain_key,
    target_module,
)
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
    "can_be_trained",
    "check",
    "check_lora",
    "empty_states",
    "factor_keys",
    "in_our_words",
    "is_factor",
    "is_grouped",
    "lora_args",
    "lora_flags",
    "make_args",
    "plain_key",
    "rules",
    "target_module",
    "topology",
    "training_flags",
]
