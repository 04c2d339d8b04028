"""MindSpeed-LLM: keys, layouts, options, args, pipelines, launch flags."""

from mscvt.dialects.mindspeed.checks import check
from mscvt.dialects.mindspeed.pipeline import topology
from mscvt.dialects.mindspeed.rules import rules
from mscvt.dialects.mindspeed.sizes import sizes, uneven

__all__ = ["check", "rules", "sizes", "topology", "uneven"]
