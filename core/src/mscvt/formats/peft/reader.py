"""Opening an adapter of PEFT: which factors there are, from headers alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mscvt.errors import Faults, MscvtError
from mscvt.formats.files import MappedFiles, file_inside
from mscvt.formats.huggingface.folders import is_of_shards
from mscvt.formats.huggingface.reader import read_file
from mscvt.formats.peft.config import AdapterConfig, read_adapter_config
from mscvt.formats.peft.names import CONFIG, MERGE, PREFIX, WEIGHTS, WEIGHTS_BIN
from mscvt.tensors.info import TensorInfo
from mscvt.tensors.sources import SourceTensor

_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?:embedding_)?(?P<which>[AB])(?P<end>\.weight)?")
_NAMED = re.compile(r"\.lora_(?:embedding_)?[AB]\.([^.]+)(?:\.weight)?$")


@dataclass
class Factors:
    """The two factors of a module, by the names of their tensors."""

    is_embedding: bool
    names: dict[str, str] = field(default_factory=dict)
    """`A` and `B` -> the name of the tensor."""


class Adapter:
    """An opened adapter.

    Attributes:
        folder: Where it is.
        config: Its settings.
        files: Its one file of weights, and its configuration.
        tensors: Every tensor by name.
        modules: Module -> its factors.
        copies: Weight of the model -> the tensor that replaces it.
    """

    def __init__(self, folder: Path) -> None:
        """Read the configuration and the headers.

        Raises:
            MscvtError: Where it is no adapter, or has what is not a factor of LoRA.
        """
        self.folder = folder
        if not folder.is_dir() or not (folder / CONFIG).exists():
            lack = f"it has no {CONFIG}" if folder.is_dir() else "no folder" if folder.exists() else "it is not there"
            hint = f"--lora-load takes the folder with {CONFIG} and {WEIGHTS}."
            if folder.is_dir() and is_of_shards([path.name for path in folder.iterdir()]):
                hint = "Factors of a training run are merged, or exported for PEFT, by mg2hf --lora-load."
            raise MscvtError(f"{folder}: is no adapter of PEFT, {lack}", hint=hint)
        self.config: AdapterConfig = read_adapter_config(folder)
        name = next((name for name in (WEIGHTS, WEIGHTS_BIN) if (folder / name).exists()), None)
        if name is None:
            raise MscvtError(f"{folder}: has neither {WEIGHTS} nor {WEIGHTS_BIN}", hint="Is the download complete?")
        self.files: Sequence[Path] = [file_inside(folder, name, "the adapter's weights"), folder / CONFIG]
        self.tensors: Mapping[str, TensorInfo] = read_file(self.files[0], 0)
        self._maps = MappedFiles(self.files)
        self.modules: dict[str, Factors] = {}
        self.copies: dict[str, str] = {}
        faults = Faults()
        for tensor in sorted(self.tensors):
            self._place(tensor, faults)
        for module, factors in self.modules.items():
            if lacking := {"A", "B"} - factors.names.keys():
                faults.add(f"{module} has no {lacking.pop()} to its {', '.join(factors.names)}")
        for saved in self.config.saved:
            if not any(f".{weight.removesuffix('.weight')}".endswith(f".{saved}") for weight in self.copies):
                faults.add(f"{CONFIG} says that {saved[:100]} is saved whole, and there is no such tensor")
        if not self.modules and not self.copies and not faults:
            faults.add("has no tensors", hint="Was it saved from another process than the one that trained?")
        faults.raise_if_any(f"{self.files[0]}: not an adapter that can be converted")

    def _place(self, tensor: str, faults: Faults) -> None:
        found = _FACTOR.fullmatch(tensor.removeprefix(PREFIX))
        is_embedding = ".lora_embedding_" in tensor
        if not tensor.startswith(PREFIX):
            faults.add(f"{tensor} doesn't begin with {PREFIX}, as all names in an adapter do")
        elif ".lora_magnitude_vector" in tensor:
            faults.add(f"{tensor} is of DoRA, which is not merged as plain LoRA is", hint=MERGE)
        elif tensor.endswith(".bias"):
            faults.add(f"{tensor} is a bias, which plain LoRA doesn't have", hint=MERGE)
        elif found is not None and bool(found["end"]) != is_embedding:
            factors = self.modules.setdefault(found["module"], Factors(is_embedding))
            factors.names[found["which"]] = tensor
        elif tensor.endswith(".weight") and "lora" not in tensor:
            self.copies[tensor.removeprefix(PREFIX).replace(".base_layer.", ".")] = tensor
        elif named := _NAMED.search(tensor):
            faults.add(
                f"{tensor} has the name of an adapter in it, {named[1]}",
                hint="Save the adapter with save_pretrained of PEFT, which leaves it out.",
            )
        else:
            faults.add(f"{tensor} is nothing that plain LoRA has", hint=MERGE)

    def tensor(self, name: str) -> SourceTensor:
        """The bytes of a tensor, as something to copy regions from."""
        return self._maps.tensor(self.tensors[name])

    def close(self) -> None:
        """Let go of every open file."""
        self._maps.close()
