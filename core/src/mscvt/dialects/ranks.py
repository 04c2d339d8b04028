"""How many ranks there may be."""

from __future__ import annotations

from math import prod

from mscvt.dialects.options import Options
from mscvt.errors import Faults
from mscvt.model.options import flag

_MOST_RANKS = 1 << 20


def check_ranks(options: Options, faults: Faults) -> None:
    """Refuse what no machine has before anything is counted out rank by rank."""
    names = ("target_tensor_parallel_size", "target_pipeline_parallel_size", "target_expert_parallel_size")
    sizes = [getattr(options, name) or 1 for name in names]
    if prod(sizes) > _MOST_RANKS:
        shown = " x ".join(f"{flag(name)} {size}" for name, size in zip(names, sizes, strict=True))
        faults.add(f"{shown}: more than {_MOST_RANKS} ranks", hint="Choose smaller sizes.")
