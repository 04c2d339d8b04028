"""Options of MindSpeed-LLM that can't be combined."""

from __future__ import annotations

from collections.abc import Collection

from mscvt.dialects.options import Options
from mscvt.errors import Faults
from mscvt.model.family import Hyperparameters
from mscvt.model.options import flag


def check(
    options: Options,
    h: Hyperparameters,  # noqa: ARG001  # its families know their own sizes and parts
    roles: Collection[str],  # noqa: ARG001
) -> None:
    """Refuse options that contradict one another.

    Raises:
        MscvtError: All faults at once.
    """
    faults = Faults()
    if options.transformer_impl == "transformer_engine" and options.mtp_num_layers:
        faults.add(
            f"{flag('transformer_impl')} transformer_engine and {flag('mtp_num_layers')} {options.mtp_num_layers} "
            "can't be combined",
            hint="Leave out one of them.",
        )
    faults.raise_if_any("options that contradict each other")
