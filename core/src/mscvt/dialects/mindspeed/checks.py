"""Options of MindSpeed-LLM that can't be combined."""

from __future__ import annotations

from collections.abc import Collection

from mscvt.dialects.biases import check_biases
from mscvt.dialects.options import Options
from mscvt.errors import Faults
from mscvt.model.family import Hyperparameters
from mscvt.model.options import flag


def check(
    options: Options,
    h: Hyperparameters,  # noqa: ARG001  # its families know their own sizes and parts
    parts: Collection[frozenset[str]],
) -> None:
    """Refuse options that contradict one another, and biases that no options of training give.

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
    check_biases("MindSpeed-LLM", parts, faults, apart=("attention.proj",))  # which --add-dense-bias gives
    faults.raise_if_any("MindSpeed-LLM can't have that")
