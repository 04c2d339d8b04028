"""Dialects: Megatron's keys and layouts for the core's roles, one table for each naming scheme."""

from mscvt.dialects.mindspeed.rules import Dialect, choose_dialect

__all__ = ["Dialect", "choose_dialect"]
