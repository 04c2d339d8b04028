"""MindSpeed-LLM: keys, layouts, options, args, pipelines, launch flags."""

from mscvt.dialects.mindspeed.args_meaning import check_meaning
from mscvt.dialects.mindspeed.args_read import absent_copies, read_hyperparameters, read_model_type, read_options
from mscvt.dialects.mindspeed.args_words import in_our_words
from mscvt.dialects.mindspeed.args_written import make_args
from mscvt.dialects.mindspeed.checks import check
from mscvt.dialects.mindspeed.launch import training_flags
from mscvt.dialects.mindspeed.options import Options
from mscvt.dialects.mindspeed.pipeline import topology
from mscvt.dialects.mindspeed.rules import rules
from mscvt.dialects.mindspeed.sizes import sizes, uneven

__all__ = [
    "Options",
    "absent_copies",
    "check",
    "check_meaning",
    "in_our_words",
    "make_args",
    "read_hyperparameters",
    "read_model_type",
    "read_options",
    "rules",
    "sizes",
    "topology",
    "training_flags",
    "uneven",
]
