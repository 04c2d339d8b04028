"""The plan of a conversion: which files, which tensors in them, and which copies fill them.

A plan is made from headers alone and proven before anything is written. It has two makers, one for each
direction, that read the same description; whatever runs a plan knows neither.
"""

from mscvt.plan.contents import Content, Copy, Plan, Region, Unit
from mscvt.plan.to_huggingface import plan_to_huggingface
from mscvt.plan.to_megatron import plan_to_megatron

__all__ = ["Content", "Copy", "Plan", "Region", "Unit", "plan_to_huggingface", "plan_to_megatron"]
