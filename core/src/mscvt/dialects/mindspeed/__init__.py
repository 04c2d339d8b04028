"""MindSpeed-LLM: keys, layouts, options, args, pipelines, launch flags."""

from mscvt.dialects.mindspeed.args_meaning import check_meaning
from mscvt.dialects.mindspeed.args_read import absent_copies, read_hyperparameters, read_model_type, read_options
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
from mscvt.dialects.mindspeed.options import Options
from mscvt.dialects.mindspeed.pipeline import topology
from mscvt.dialects.mindspeed.rules import rules
from mscvt.dialects.mindspeed.settings import recorded_settings, settings_of, unsaid
from mscvt.dialects.mindspeed.sizes import sizes, uneven

__all__ = [
    "Options",
    "absent_copies",
    "can_be_trained",
    "check",
    "check_lora",
    "check_meaning",
    "factor_keys",
    "in_our_words",
    "is_factor",
    "is_grouped",
    "lora_args",
    "lora_flags",
    "make_args",
    "plain_key",
    "read_hyperparameters",
    "read_model_type",
    "read_options",
    "recorded_settings",
    "rules",
    "settings_of",
    "sizes",
    "target_module",
    "topology",
    "training_flags",
    "uneven",
    "unsaid",
]
