"""What the command line of MindSpeed-LLM's `convert_ckpt_v2.py` has and this program doesn't, each with the reason.

Its public launch scripts pass some options that mean nothing here. They are taken and said, never silently.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mscvt.errors import Faults
from mscvt.model.options import flag
from mscvt.records import dataclass


@dataclass(frozen=True, slots=True)
class Foreign:
    """An option of the original."""

    why: str
    """Why it means nothing here, or why it is refused."""
    least: int = 1
    """How many words it takes."""
    most: int | None = 1
    """None where there is no limit."""
    values: tuple[str, ...] = ()
    """The only values under which it means nothing; empty where all do."""
    instead: str | None = None
    """What to do where it is refused."""
    is_refused: bool = False


_CUT = "args of the checkpoint record it"
ORIGINAL: Mapping[str, Foreign] = MappingProxyType(
    {
        "--params-dtype": Foreign(
            "each tensor keeps its own type", values=("bf16",), instead="--dtype converts weights to another type."
        ),
        "--save-layer-by-layer": Foreign("memory does not grow with the model", least=0, most=0),
        "--ai-framework": Foreign(
            "the files are the same for both", values=("pytorch", "mindspore"), instead="Leave it out."
        ),
        "--input-tp-rank": Foreign(_CUT),
        "--input-pp-rank": Foreign(_CUT),
        "--pipeline-model-parallel-layout": Foreign(
            "layouts of the pipeline that are written out can't be converted",
            instead="--num-layer-list gives each stage its number of layers.",
            is_refused=True,
        ),
        "--lora-fusion": Foreign("it changes the speed of training alone", least=0, most=0),
        "--lora-ckpt-filter": Foreign("factors are found with and without weights beside them", least=0, most=0),
        "--qlora-nf4": Foreign(
            "weights are not quantised on the way",
            least=0,
            most=None,
            instead="Leave it out; --dequantize reads weights that bitsandbytes quantised.",
            is_refused=True,
        ),
        "--qlora-save-dequantize": Foreign("what is written is not quantised", least=0, most=0),
    }
)
"""Option -> what is known of it."""

_RANKS = ("target_tensor_parallel_size", "target_pipeline_parallel_size", "target_expert_parallel_size")
_DIRECTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"mg": ("hf_cfg_dir", "iteration", "replicas", "save_lora_to_hf"), "hf": ("dequantize", "save_lora_to_mg")}
)
"""What is made -> options that mean nothing then."""


def take_original(name: str, texts: list[str], notes: list[str], refused: list[str], faults: Faults) -> None:
    """Take an option of the original: note why it means nothing, or refuse it.

    Args:
        name: The option, with its dashes.
        texts: The words that belong to it.
        notes: Where the reason is added.
        refused: Where its name is added instead, if such options can't be taken at all.
        faults: Where a fault is added, if its value is none under which it means nothing.
    """
    foreign = ORIGINAL[name]
    said = " ".join([name, *map(shlex.quote, texts)])
    if foreign.is_refused:
        refused.append(name)
    elif len(texts) < foreign.least:
        faults.add(f"{name}: needs a value", hint=f"Leave it out: {foreign.why}.")
    elif foreign.most == 0 and texts:
        faults.add(f"{said}: takes no value", hint=f"Leave it out: {foreign.why}.")
    elif foreign.values and not set(texts) <= set(foreign.values):
        faults.add(f"{said}: {foreign.why}", hint=foreign.instead)
    else:
        notes.append(f"{said} means nothing here: {foreign.why}")


def check_direction(values: Mapping[str, Any], faults: Faults) -> None:
    """Refuse a conversion of a format to itself, and options of the other direction."""
    load, save = values.get("load_model_type", "hf"), values.get("save_model_type", "mg")
    if load == save:
        faults.add(f"both --load-model-type and --save-model-type are {load}", hint="One must be hf, the other mg.")
        return
    for name in _DIRECTIONS.get(save, ()):
        if name in values:
            faults.add(f"{flag(name)} has no meaning with --save-model-type {save}", hint=f"Leave out {flag(name)}.")


def without_single_ranks(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values of a way back without parallel sizes of 1, which scripts pass for the one folder that is made.

    Returns:
        The values, and a note for each that was left out.
    """
    left_out = [name for name in _RANKS if values.get(name) == 1]
    kept = {name: value for name, value in values.items() if name not in left_out}
    return kept, [f"{flag(name)} 1 means nothing here: {_CUT}" for name in left_out]
