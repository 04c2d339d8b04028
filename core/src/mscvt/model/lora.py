"""What is asked for of a LoRA adapter."""

from __future__ import annotations

from pathlib import Path

from mscvt.model.options import option
from mscvt.records import dataclass

_LORA = "LoRA"
_RECORDED = "what the shapes and args say"


@dataclass(frozen=True, slots=True)
class Lora:
    """What was asked for; None means that nothing was."""

    lora_load: Path | None = option(
        panel=_LORA,
        metavar="DIR",
        help="Folder of factors, which are merged on the way: towards Hugging Face a checkpoint of training with LoRA, "
        "in the other direction an adapter of PEFT.",
        unset="factors that the source itself has",
        holds="the factors are of this model, and have the ranks of the source",
    )
    lora_r: int | None = option(
        panel=_LORA, metavar="N", help="Rank of the factors.", unset=_RECORDED, least=1, holds="it is their rank"
    )
    lora_alpha: int | None = option(
        panel=_LORA,
        metavar="N",
        help="What is added is alpha / r times B A.",
        unset="what args or adapter_config.json say",
        least=1,
        holds="it is what args or adapter_config.json say",
    )
    lora_target_modules: tuple[str, ...] | None = option(
        panel=_LORA,
        metavar="MODULE ...",
        help="Modules that have factors.",
        unset="those that have some",
        holds="they are those that have some",
    )
    save_lora_to_hf: bool | None = option(
        panel=_LORA,
        help="Write the factors alone, as an adapter that PEFT loads.",
        unset="factors are merged",
        holds="the source has factors, of which all copies are equal",
    )
    save_lora_to_mg: bool | None = option(
        panel=_LORA,
        help="Write the factors alone, as a checkpoint that training goes on with.",
        unset="factors are merged",
        holds="--lora-load is given",
    )

    @property
    def is_asked(self) -> bool:
        """Whether anything of it was."""
        return any(getattr(self, name) is not None for name in self.__dataclass_fields__)
