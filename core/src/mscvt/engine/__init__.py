"""The engine: runs the copies of a plan into a sink, with bounded memory, in threads, in source order."""

from mscvt.engine.run import DEFAULT_MEMORY, Progress, run_plan

__all__ = ["DEFAULT_MEMORY", "Progress", "run_plan"]
